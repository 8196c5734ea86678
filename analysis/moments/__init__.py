"""Mean, covariance and the affine score that they make."""
