"""Sweeps: definition, execution, folder and status of many runs."""
