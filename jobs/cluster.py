"""What `ray job submit -- python jobs/cluster.py …` runs: `celebvision cluster …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["cluster", *sys.argv[1:]]))
