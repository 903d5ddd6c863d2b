"""Retraining: what has landed since the champion was trained, a challenger that learns it too, and who is better."""
