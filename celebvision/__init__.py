"""CelebVision: label or restyle a bucket of photos on a cluster, with models that the same system trains."""

from importlib.metadata import version

__version__ = version("celebvision")
