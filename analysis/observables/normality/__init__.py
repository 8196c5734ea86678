"""Are the noised data normal."""
