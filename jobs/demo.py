"""What `ray job submit -- python jobs/demo.py …` runs: `celebvision demo …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
