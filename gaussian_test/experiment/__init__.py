"""The experiment, its parts, and its error messages."""
