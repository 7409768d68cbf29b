"""What holds for every input: the pure cores, and whole supervision trees, under Hypothesis."""
