"""A Ray cluster of several nodes on one machine, to see jobs submitted and nodes come and go before anybody pays.

The head has no CPUs. Ray's own autoscaler starts workers as tasks ask for them, and ends those without work. All of it
listens on loopback, and asks for a token.
"""

from celebvision.local_cluster.cluster import cluster

__all__ = ["cluster"]
