"""Where Ray cannot spill because its disk is full, a job ends exactly, or says so and is continued elsewhere."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.cluster import Cluster, cluster
from faults.command import Marked, wait_until
from faults.conftest import Exact, House, Start

DISK = "8m"
STORE_BYTES = 80_000_000  # the least that Ray takes is 75 MiB
# A process of its own that fills the store and then the disk, so that nothing of what the job passes on finds room.
BALLAST = """
import sys, numpy, ray
ray.init(log_to_driver=False, logging_level="WARNING")
held = []
for size in (1_000_000, 120_000):  # the smaller ones take the room that a block of the job would find
    try:
        while True:
            held.append(ray.put(numpy.zeros(size, numpy.uint8)))
    except ray.exceptions.RayError as error:
        print(len(held), type(error).__name__, flush=True)
print("ballast is in", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a full disk is made by mounting a small one, and mount refuses: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def full(tmp_path: Path, tiny_disk: Path) -> Iterator[Cluster]:
    """A cluster of one node with a full object store, which spills to a disk that holds next to nothing."""
    with cluster(tmp_path) as made:
        made.add(2, f"--object-store-memory={STORE_BYTES}", f"--object-spilling-directory={tiny_disk}")
        with Marked([sys.executable, "-c", BALLAST], tmp_path / "ballast", made.environment) as ballast:
            wait_until(lambda: "ballast is in" in ballast.stdout or ballast.ended(), "the disk took all", 120)
            assert not ballast.ended(), ballast.stderr
            assert shutil.disk_usage(tiny_disk).used > 0, "nothing was spilled: the disk is not in play"
            yield made


def test_a_full_spilling_disk_loses_no_key(
    house: House, start: Start, exactly_once: Exact, full: Cluster, tmp_path: Path
) -> None:
    output = tmp_path / "labels"
    words = [*house.words(output), "--split_stages", "--stall_timeout_s", "60"]
    with start(words, full.environment) as command:
        status = command.status()
        assert status in (0, 1), command.stderr
        assert "Traceback" not in command.stderr
    if status == 1:
        with start(words) as again:  # on a cluster of its own, whose disk has room
            assert again.status() == 0, again.stderr
    exactly_once("full spilling disk", output)
