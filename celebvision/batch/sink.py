"""The end of a run: its parts are held against the inventory, then laid together as results and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray

from celebvision.batch.drift import Distributions, distributions_of, positives_of, summed
from celebvision.batch.inventory import shard_numbers
from celebvision.batch.record import FAILURE_FIELDS, IMAGES, UNCERTAIN, Run
from celebvision.job import JobFailed, progress
from celebvision.ray_session import clear_errors
from celebvision.storage import NotFound, Store, open_store, read_table, write_table

PARTS_A_FILE = 200  # at 1,000 keys a part, 200,000 rows a file
FILES_HERE = 8  # are sooner done by the driver than workers are found for them
MERGE_CPUS = 1.0  # a worker for each half would take longer to start than to merge
NOT_IN_RESULTS = [name for name, _ in FAILURE_FIELDS]
FAILURE_COLUMNS = ["key", "etag", *NOT_IN_RESULTS, "model", "model_version", "run_id"]


def finished_shards(output: Store, run: Run) -> set[int]:
    """Numbers of the inventory shards whose rows are written."""
    return set(shard_numbers(output, f"{run.folder}/parts/"))


def finish(output: Store, run: Run) -> tuple[dict[str, int], dict[str, int], Distributions]:
    """Verify every part against its shard and write results and failures, sorted by key.

    Returns:
        Counts of `results`, `failures` and failures by stage, and where labels may be uncertain `results_uncertain`,
        the results with such a label; failures by stage and error; and of `classify` how its rows are spread.

    Raises:
        JobFailed: a key is missing, doubled or not of the inventory; the parts stay for a look at them.
    """
    shards = run.inventory["shards"]
    spans = [(first, min(first + PARTS_A_FILE, shards)) for first in range(0, shards, PARTS_A_FILE)]
    merged = []
    with clear_errors(), progress(f"{run.verb}, results", len(spans), "files") as show:
        for one in _files(output.uri, run, spans):
            merged.append(one)
            show(len(merged))
    counts = sum((one.counts for one in merged), Counter[str]())
    reasons = sum((one.reasons for one in merged), Counter[str]())
    if counts["results"] + counts["failures"] != run.inventory["keys"]:
        raise JobFailed(f"{run.inventory['keys']} keys went in and {dict(counts)} came out; run {run.run_id}")
    uncertain = {} if run.config.get("uncertain_below") is None else {"results_uncertain": 0}
    spread = summed(one.distributions for one in merged)
    return {"results": 0, "failures": 0} | uncertain | counts, dict(reasons), spread


def delete_parts(output: Store, run: Run) -> None:
    """Remove what a finished run does not need any more."""
    for folder in ("parts", "journal"):
        output.delete_all(stat.key for stat in output.list(f"{run.folder}/{folder}/"))
    images = [IMAGES] if run.verb == "stylize" else []
    for folder in (run.folder, f"results/run={run.run_id}", f"failures/run={run.run_id}", *images):
        output.sweep(folder)


class _Merged(NamedTuple):
    """What `finish` gives, of some shards."""

    counts: Counter[str]
    reasons: Counter[str]
    distributions: Distributions


def _files(uri: str, run: Run, spans: list[tuple[int, int]]) -> Iterator[_Merged]:
    if len(spans) <= FILES_HERE:
        for file, span in enumerate(spans):
            yield _merge(uri, run, file, *span)
        return
    merge = ray.remote(num_cpus=MERGE_CPUS)(_merge)
    tasks = [merge.remote(uri, run, file, *span) for file, span in enumerate(spans)]
    for task in tasks:
        yield ray.get(task)


def _merge(uri: str, run: Run, file: int, first: int, last: int) -> _Merged:
    """Lay the parts of the shards from `first` to before `last` together as file number `file`."""
    store = open_store(uri)
    with ThreadPoolExecutor(store.in_flight, "parts") as pool:
        parts = list(pool.map(partial(_verified, store, run), range(first, last)))
    # Parts that an earlier version left have fewer columns.
    rows = pa.concat_tables(parts, promote_options="default")
    failed = pc.is_valid(rows["stage"])
    results = rows.filter(pc.invert(failed)).drop_columns([*NOT_IN_RESULTS, *positives_of(rows)])
    failures = rows.filter(failed).select(FAILURE_COLUMNS)
    for table, key in ((results, run.results(file)), (failures, run.failures(file))):
        if len(table):
            write_table(store, key, table)
    counts = Counter(f"failures_{stage}" for stage in failures["stage"].to_pylist())
    counts.update(results=len(results), failures=len(failures), results_uncertain=_uncertain(results))
    reasons = Counter(map(" ".join, zip(failures["stage"].to_pylist(), failures["error"].to_pylist(), strict=True)))
    return _Merged(+counts, reasons, distributions_of(rows) if run.verb == "classify" else {})


def _verified(store: Store, run: Run, number: int) -> pa.Table:
    try:
        part = read_table(store, run.part(number))
    except NotFound:
        raise JobFailed(f"shard {number} of run {run.run_id} has no rows; the same command continues") from None
    wanted = read_table(store, run.shard(number), ["key"])
    if not part["key"].equals(wanted["key"]):
        raise JobFailed(f"{run.part(number)} does not hold the keys of {run.shard(number)}, each once")
    return part


def _uncertain(results: pa.Table) -> int:
    """Rows with an uncertain label at least."""
    labels = [name for name in results.column_names if name == "label" or name.startswith("label_")]
    if not labels:
        return 0
    uncertain = [pc.equal(results[name], UNCERTAIN) for name in labels]
    return pc.sum(reduce(pc.or_, uncertain)).as_py() or 0
