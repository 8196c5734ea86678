"""What came out: variables, one view of a result, its text, JSON and comparison."""
