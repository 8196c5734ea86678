"""Observables of a run, one record per measurement."""
