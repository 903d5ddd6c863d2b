"""What `ray job submit -- python jobs/report.py …` report: `celebvision report …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
