"""Cluster bootstrap, bands, crossings."""
