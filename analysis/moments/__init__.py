"""Mean, covariance and the affine score built from them."""
