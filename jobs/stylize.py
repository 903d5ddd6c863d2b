"""What `ray job submit -- python jobs/stylize.py …` runs: `celebvision stylize …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["stylize", *sys.argv[1:]]))
