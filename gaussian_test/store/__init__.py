"""Files on disk: atomic writes, checksums, parts, archives, locks."""
