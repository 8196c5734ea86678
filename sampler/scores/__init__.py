"""Scores whose formula is known."""
