"""The end of a run: its parts are held against the inventory, then laid together as results and failures."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray

from celebvision.batch.drift import Distributions, distributions_of, positives_of, summed
from celebvision.batch.inventory import shard_numbers
from celebvision.batch.record import FAILURE_FIELDS, IMAGES, UNCERTAIN, Run
from celebvision.job import JobFailed
from celebvision.ray_session import clear_errors
from celebvision.storage import NotFound, Store, open_store, read_table, write_table

PARTS_A_FILE = 200  # at 500 keys a part, 100,000 rows a file
MERGE_CPUS = 0.5
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
    merge = _Merge(output.uri, run)
    if len(spans) == 1:  # sooner done here than a worker is started for it
        merged = [merge.span(0, *spans[0])]
    else:
        rows = [{"file": file, "first": first, "last": last} for file, (first, last) in enumerate(spans)]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        with clear_errors():
            answers = dataset.map_batches(merge, batch_size=1, num_cpus=MERGE_CPUS).iter_rows()
            merged = [tuple(json.loads(row["merged"])) for row in answers]
    counts, reasons = (sum((Counter[str](one[at]) for one in merged), Counter[str]()) for at in (0, 1))
    if counts["results"] + counts["failures"] != run.inventory["keys"]:
        raise JobFailed(f"{run.inventory['keys']} keys went in and {dict(counts)} came out; run {run.run_id}")
    uncertain = {} if run.config.get("uncertain_below") is None else {"results_uncertain": 0}
    spread = summed(distributions for *_, distributions in merged)
    return {"results": 0, "failures": 0} | uncertain | counts, dict(reasons), spread


def delete_parts(output: Store, run: Run) -> None:
    """Remove what a finished run does not need any more."""
    for folder in ("parts", "journal"):
        for stat in list(output.list(f"{run.folder}/{folder}/")):
            output.delete(stat.key)
    images = [IMAGES] if run.verb == "stylize" else []
    for folder in (run.folder, f"results/run={run.run_id}", f"failures/run={run.run_id}", *images):
        output.sweep(folder)


@dataclass(frozen=True)
class _Merge:
    output: str
    run: Run

    def __call__(self, batch: dict[str, NDArray[Any]]) -> pa.Table:
        merged = [self.span(*map(int, span)) for span in zip(*batch.values(), strict=True)]
        return pa.table({"merged": [json.dumps(of_span) for of_span in merged]})

    def span(self, file: int, first: int, last: int) -> tuple[dict[str, int], dict[str, int], Distributions]:
        store = open_store(self.output)
        parts = [self._verified(store, number) for number in range(first, last)]
        # Parts that an earlier version left have fewer columns.
        rows = pa.concat_tables(parts, promote_options="default")
        failed = pc.is_valid(rows["stage"])
        results = rows.filter(pc.invert(failed)).drop_columns([*NOT_IN_RESULTS, *positives_of(rows)])
        failures = rows.filter(failed).select(FAILURE_COLUMNS)
        for table, key in ((results, self.run.results(file)), (failures, self.run.failures(file))):
            if len(table):
                write_table(store, key, table)
        counts = Counter(f"failures_{stage}" for stage in failures["stage"].to_pylist())
        counts.update(results=len(results), failures=len(failures), results_uncertain=_uncertain(results))
        reasons = Counter(map(" ".join, zip(failures["stage"].to_pylist(), failures["error"].to_pylist(), strict=True)))
        return +counts, reasons, distributions_of(rows) if self.run.verb == "classify" else {}

    def _verified(self, store: Store, number: int) -> pa.Table:
        try:
            part = read_table(store, self.run.part(number))
        except NotFound:
            raise JobFailed(
                f"shard {number} of run {self.run.run_id} has no rows; the same command continues"
            ) from None
        wanted = read_table(store, self.run.shard(number), ["key"])
        if part["key"].to_pylist() != wanted["key"].to_pylist():
            raise JobFailed(f"{self.run.part(number)} does not hold the keys of {self.run.shard(number)}, each once")
        return part


def _uncertain(results: pa.Table) -> int:
    """Rows with an uncertain label at least."""
    labels = [name for name in results.column_names if name == "label" or name.startswith("label_")]
    if not labels:
        return 0
    uncertain = [pc.equal(results[name], UNCERTAIN) for name in labels]
    return pc.sum(reduce(pc.or_, uncertain)).as_py() or 0
