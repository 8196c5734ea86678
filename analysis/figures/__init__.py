"""The style of all figures, their parts, and overviews of several results."""
