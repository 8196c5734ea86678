"""What is measured: one record per measurement."""
