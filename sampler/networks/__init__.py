"""Scores that a network has learned."""
