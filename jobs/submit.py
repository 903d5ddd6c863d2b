"""What `ray job submit -- python jobs/submit.py …` runs: `celebvision submit …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["submit", *sys.argv[1:]]))
