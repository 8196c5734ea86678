"""Closed forms, exact laws of samplers, predictions, information."""
