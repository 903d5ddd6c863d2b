"""A verb's job on a Ray cluster elsewhere, through Ray's Jobs API: checked, sent, followed, stopped."""

from celebvision.submit.run import submit

__all__ = ["submit"]
