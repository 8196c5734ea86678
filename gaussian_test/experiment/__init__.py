"""What is asked: the experiment, its parts, and how a refusal is worded."""
