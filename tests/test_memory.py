"""What was freed is at hand again without a page fault."""

import platform
import subprocess
import sys

import pytest

FAULTS_OF_TEN_BATCHES = """
import resource, sys
import numpy as np
from celebvision.memory import keep_freed_memory

def batch():
    held = [np.ones(20 << 20, np.uint8) for _ in range(4)]

if sys.argv[1] == "keep":
    keep_freed_memory()
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    return int(
        subprocess.run([sys.executable, "-c", FAULTS_OF_TEN_BATCHES, word], capture_output=True, check=True).stdout
    )


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_freed_memory_is_kept_for_the_next_batch() -> None:
    assert faults("keep") < 200 < faults("leave")
