"""What `ray job submit -- python jobs/promote.py …` runs: `celebvision promote …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["promote", *sys.argv[1:]]))
