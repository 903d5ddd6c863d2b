"""What `ray job submit -- python jobs/runs.py …` runs: `celebvision runs …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["runs", *sys.argv[1:]]))
