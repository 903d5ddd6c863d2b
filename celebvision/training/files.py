"""What a training keeps in its folder besides checkpoints and TensorBoard's files."""

HISTORY = "history.parquet"  # a row of figures each epoch
CONFIG = "config.json"  # its settings
PUBLISHED = "published.json"  # the versions that it ended with, and their figures; last of all
PICTURES = "pictures"  # epoch-NNNN-DIRECTION.png: what a network that draws made of the same photos
