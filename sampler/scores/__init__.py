"""Scores in closed form."""
