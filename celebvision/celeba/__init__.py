"""The CelebA data set (Liu et al. 2015, arXiv:1411.7766): 202,599 faces of celebrities with 40 binary attributes."""
