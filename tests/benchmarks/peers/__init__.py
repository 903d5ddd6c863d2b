"""The peers, a script each, run as modules."""

import time

STARTED = time.time()  # before any of what a peer imports, which takes its time too
