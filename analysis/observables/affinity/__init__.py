"""Is the score affine: what explains it, the best affine map, its norm."""
