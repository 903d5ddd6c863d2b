"""What is done to a running job, and that no key is lost or doubled by it."""
