"""`python -m celebvision VERB …`: the command, wherever the package is."""

import sys

from celebvision.cli import main

if __name__ == "__main__":
    sys.exit(main())
