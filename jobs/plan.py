"""What `ray job submit -- python jobs/plan.py …` runs: `celebvision plan …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["plan", *sys.argv[1:]]))
