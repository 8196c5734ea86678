"""Validated samples, scores, kernels, features and plan of a run."""
