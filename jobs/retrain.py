"""What `ray job submit -- python jobs/retrain.py …` runs: `celebvision retrain …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["retrain", *sys.argv[1:]]))
