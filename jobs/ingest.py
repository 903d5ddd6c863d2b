"""What `ray job submit -- python jobs/ingest.py …` runs: `celebvision ingest …`."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main(["ingest", *sys.argv[1:]]))
