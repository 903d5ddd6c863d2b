"""What `ray job submit -- python jobs/app.py …` app: `celebvision app …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
