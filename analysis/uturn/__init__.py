"""U-Turns: the sample table, curves, times, auto-correlation."""
