"""What `ray job submit -- python jobs/classify.py …` runs: `celebvision classify …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["classify", *sys.argv[1:]]))
