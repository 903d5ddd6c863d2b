"""What a run leaves: its parts are held against the inventory and laid together as results and failures.

A file of them is made once all of its parts are there, while other shards are worked on. For the end of a run it leaves
the last files and the deletion of the parts, however large the bucket. A start after a kill makes the same files again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial, reduce
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from celebvision.batch.drift import Distributions, distributions_of, positives_of, summed
from celebvision.batch.inventory import shard_numbers
from celebvision.batch.record import FAILURE_FIELDS, IMAGES, UNCERTAIN, Run
from celebvision.job import JobFailed, progress
from celebvision.ray_session import clear_errors
from celebvision.storage import GrowingFile, NotFound, Store, open_store, open_table, read_table

PARTS_A_FILE = 200  # at 1,000 keys a part, 200,000 rows a file
PARTS_A_GROUP = 20  # are in memory as a whole, and a row group of their file
FILES_HERE = 8  # are sooner done by the driver than workers are found for them
MERGE_CPUS = 1.0  # a worker for each half would take longer to start than to merge
NOT_IN_RESULTS = [name for name, _ in FAILURE_FIELDS]
FAILURE_COLUMNS = ["key", "etag", *NOT_IN_RESULTS, "model", "model_version", "run_id"]


def finished_shards(output: Store, run: Run) -> set[int]:
    """Numbers of the inventory shards whose rows are written."""
    return set(shard_numbers(output, f"{run.folder}/parts/"))


class Results:
    """The files of results and failures of a run, which become more while it works."""

    def __init__(self, output: Store, run: Run) -> None:
        self.output, self.run = output, run
        self.there: defaultdict[int, set[int]] = defaultdict(set)  # shards with rows, by file
        self.made: dict[int, Future[_Merged]] = {}
        self.pool = ThreadPoolExecutor(1, "results")  # beside the driver's own work there is no core for more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def add(self, shards: Iterable[int]) -> None:
        """The rows of these shards are written; if they are the last of a file, it is made by a thread."""
        for shard in shards:
            if (file := shard // PARTS_A_FILE) not in self.made:
                self.there[file].add(shard)
                if len(self.there[file]) == PARTS_A_FILE:
                    self._make(file, range(file * PARTS_A_FILE, (file + 1) * PARTS_A_FILE))
                    del self.there[file]

    def finish(self) -> tuple[dict[str, int], dict[str, int], Distributions]:
        """Make what files are left, and verify that there is a row for every key of the inventory.

        Returns:
            Counts of `results`, `failures` and failures by stage, and where labels may be uncertain
            `results_uncertain`, the results with such a label; failures by stage and error; and of `classify` how its
            rows are spread.

        Raises:
            JobFailed: a key is missing, doubled or not of the inventory; the parts stay for a look at them.
        """
        shards = range(self.run.inventory["shards"])
        files = [shards[first : first + PARTS_A_FILE] for first in shards[::PARTS_A_FILE]]
        merged = []
        with clear_errors(), progress(f"{self.run.verb}, results", len(files), "files") as show:
            for one in self._files(files):
                merged.append(one)
                show(len(merged))
        counts, reasons, spread = _together(merged)
        if counts["results"] + counts["failures"] != self.run.inventory["keys"]:
            raise JobFailed(
                f"{self.run.inventory['keys']} keys went in and {dict(counts)} came out; run {self.run.run_id}"
            )
        uncertain = {} if self.run.config.get("uncertain_below") is None else {"results_uncertain": 0}
        return {"results": 0, "failures": 0} | uncertain | counts, dict(reasons), spread

    def _files(self, files: list[range]) -> Iterator[_Merged]:
        """All, in order: what is left, or failed meanwhile, is made now, by workers if it is much."""
        left = [file for file in range(len(files)) if not self._is_made(file)]
        tasks = {}
        if len(left) <= FILES_HERE:
            for file in left:
                self._make(file, files[file])
        else:
            merge = ray.remote(num_cpus=MERGE_CPUS)(_merge)
            tasks = {file: merge.remote(self.output.uri, self.run, file, files[file]) for file in left}
        for file in range(len(files)):
            yield ray.get(tasks[file]) if file in tasks else self.made[file].result()

    def _is_made(self, file: int) -> bool:
        made = self.made.get(file)
        return made is not None and not made.cancel() and made.exception() is None

    def _make(self, file: int, shards: range) -> None:
        self.made[file] = self.pool.submit(_merge, self.output.uri, self.run, file, shards)


def delete_parts(output: Store, run: Run) -> None:
    """Remove what a finished run does not need any more."""
    for folder in ("parts", "journal"):
        output.delete_all(stat.key for stat in output.list(f"{run.folder}/{folder}/"))
    images = [IMAGES] if run.verb == "stylize" else []
    for folder in (run.folder, f"results/run={run.run_id}", f"failures/run={run.run_id}", *images):
        output.sweep(folder)


class _Merged(NamedTuple):
    """What `Results.finish` gives, of some rows."""

    counts: Counter[str]
    reasons: Counter[str]
    distributions: Distributions


def _merge(uri: str, run: Run, file: int, shards: range) -> _Merged:
    """Lay the parts of these shards together as file number `file`, a row group of some of them after another."""
    store = open_store(uri)
    with ThreadPoolExecutor(store.in_flight, "parts") as pool:
        parts = dict(zip(shards, pool.map(partial(_part, store, run), shards), strict=True))
        # Parts that an earlier version left have fewer columns.
        none = pa.unify_schemas([part.schema_arrow for part in parts.values()]).empty_table()
        files = [GrowingFile(table.schema) for table in _split(none)]
        merged = []
        for first in shards[::PARTS_A_GROUP]:
            some = range(first, min(first + PARTS_A_GROUP, shards.stop))
            tables = list(pool.map(partial(_verified, store, run), some, map(parts.pop, some)))
            rows = pa.concat_tables([none, *tables], promote_options="default")
            results, failures = _split(rows)
            files[0].add(results)
            files[1].add(failures)
            counts = Counter(f"failures_{stage}" for stage in failures["stage"].to_pylist())
            counts.update(results=len(results), failures=len(failures), results_uncertain=_uncertain(results))
            why = zip(failures["stage"].to_pylist(), failures["error"].to_pylist(), strict=True)
            spread = distributions_of(rows) if run.verb == "classify" else {}
            merged.append(_Merged(counts, Counter(map(" ".join, why)), spread))
    for growing, key in zip(files, (run.results(file), run.failures(file)), strict=True):
        if growing.rows:
            growing.put(store, key)
    return _together(merged)


def _part(store: Store, run: Run, number: int) -> pq.ParquetFile:
    """The rows of a shard, still compressed."""
    try:
        return open_table(store, run.part(number))
    except NotFound:
        raise JobFailed(f"shard {number} of run {run.run_id} has no rows; the same command continues") from None


def _verified(store: Store, run: Run, number: int, part: pq.ParquetFile) -> pa.Table:
    rows = part.read(use_threads=False)
    wanted = read_table(store, run.shard(number), ["key"])
    if not rows["key"].equals(wanted["key"]):
        raise JobFailed(f"{run.part(number)} does not hold the keys of {run.shard(number)}, each once")
    return rows


def _split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Results and failures, each with its columns."""
    failed = pc.is_valid(rows["stage"])
    results = rows.filter(pc.invert(failed)).drop_columns([*NOT_IN_RESULTS, *positives_of(rows)])
    return results, rows.filter(failed).select(FAILURE_COLUMNS)


def _together(several: Sequence[_Merged]) -> _Merged:
    counts = sum((one.counts for one in several), Counter[str]())
    reasons = sum((one.reasons for one in several), Counter[str]())
    return _Merged(counts, reasons, summed(one.distributions for one in several))


def _uncertain(results: pa.Table) -> int:
    """Rows with an uncertain label at least."""
    labels = [name for name in results.column_names if name == "label" or name.startswith("label_")]
    if not labels:
        return 0
    uncertain = [pc.equal(results[name], UNCERTAIN) for name in labels]
    return pc.sum(reduce(pc.or_, uncertain)).as_py() or 0
