"""What `ray job submit -- python jobs/top.py …` top: `celebvision top …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["top", *sys.argv[1:]]))
