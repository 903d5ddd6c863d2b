"""What `ray job submit -- python jobs/train.py …` runs: `celebvision train …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
