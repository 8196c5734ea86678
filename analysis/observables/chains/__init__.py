"""Chains of U-Turns."""
