"""Batch jobs: a bucket in, results out, each key once."""
