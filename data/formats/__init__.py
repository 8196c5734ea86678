"""Sources of samples, one module each."""
