"""The version number, free of other imports."""

__version__ = "0.1.0"
