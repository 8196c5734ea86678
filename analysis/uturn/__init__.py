"""Auto-correlation, end-point classifier and ground truth of U-Turns."""
