"""Training: one loop for every task, on Ray Train."""
