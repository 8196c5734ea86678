"""Network scores."""
