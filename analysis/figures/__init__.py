"""Figure style, figure parts, and overviews of several results."""
