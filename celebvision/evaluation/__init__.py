"""What a model is worth: figures with their intervals, comparisons, and its answer for every picture of a split."""
