"""What `ray job submit -- python jobs/evaluate.py …` runs: `celebvision evaluate …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
