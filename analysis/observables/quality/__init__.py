"""How far the end points are from the ground truth."""
