"""The result: assembly, views, text, JSON and comparison."""
