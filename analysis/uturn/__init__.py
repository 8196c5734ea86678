"""Of U-Turns: the auto-correlation, the classifier of end points, and the ground truth that scores are held against."""
