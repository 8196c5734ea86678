"""Bytes on disk: whole files, checksums, parts, fits, archives, locks."""
