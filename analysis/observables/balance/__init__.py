"""Does detailed balance hold; the field of changes."""
