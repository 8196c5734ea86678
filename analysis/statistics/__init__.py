"""Cluster bootstrap, confidence bands, crossings."""
