"""Run a command and leave its exit status in a file: py-spy does not tell it, and wants a command to be Python's."""

import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    status = subprocess.call(sys.argv[2:])
    Path(sys.argv[1]).write_text(str(status))
