"""What will run: samples, scores, kernels, features and the plan, checked before any work."""
