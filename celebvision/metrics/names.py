"""The one list of what jobs measure: names, kinds, units, labels and help.

Every series has the labels of its job too (`JOB_LABELS`). What runs a job exports it: Ray puts `ray_` before a name,
which the scrape configuration takes off again, so that a name is the same from Ray and from the Pushgateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

PREFIX = "celebvision_"
JOB_LABELS = ("verb", "model", "output")  # each has one value a job: its verb, its model's name, the URI it writes to

# What a label may say. A label is of this list, or it is a job's: series do not grow with pictures, keys or runs.
VERBS = ("train", "retrain", "classify", "stylize")
STATES = ("listing", "running", "done", "failed", "interrupted")
STAGES = ("fetch", "decode", "infer", "write")
OUTCOMES = ("ok", "failed")
OTHER = "other"  # reason of a failure whose error has no name here
REASONS = (
    "Conflict",
    "Denied",
    "Expired",
    "Full",
    "NotFinite",
    "NotFound",
    "OutOfMemoryError",
    "StorageError",
    "Throttled",
    "TooManyBytes",
    "UndecodableImage",
    "Unreachable",
    OTHER,
)
DIRECTIONS = ("read", "written")
LOSSES = ("loss", "content", "style", "generator", "adversarial", "cycle", "identity", "discriminator")
VALIDATED = (
    "score",
    "valid_loss",
    "valid_accuracy",
    "content_loss",
    "style_loss",
    "kid",
    "kid_reverse",
    "kid_share",
    "fid",
    "cycle_l1",
    "variety",
)
DECISIONS = ("nothing new", "promoted", "kept")
ENDS = ("done", "refused", "failed")  # of what a page was asked for
OF_THE_MODEL = ()  # values that the job's model gives a label: its version, what it answers


@dataclass(frozen=True)
class Metric:
    """A name under which a figure is told."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))  # and their values
    buckets: tuple[float, ...] = ()  # of a histogram: upper bounds

    @property
    def exported(self) -> str:
        """The name as Prometheus has it; a histogram's has `_bucket`, `_sum` and `_count` behind it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    def check(self, labels: Mapping[str, str]) -> None:
        """Raises `ValueError` if these are not the labels that it is declared with, or say what they may not."""
        if labels.keys() != self.labels.keys():
            raise ValueError(f"{self.name}: labels {sorted(labels)}; it is declared with {sorted(self.labels)}")
        for label, value in labels.items():
            if self.labels[label] != OF_THE_MODEL and value not in self.labels[label]:
                raise ValueError(f"{self.name}: {label}={value!r} is not declared; there are {self.labels[label]}")


METRICS: dict[str, Metric] = {}  # by name


def _metric(
    kind: Literal["counter", "gauge", "histogram"],
    name: str,
    unit: str,
    words: str,
    buckets: tuple[float, ...] = (),
    **labels: tuple[str, ...],
) -> Metric:
    metric = Metric(PREFIX + name, kind, unit, words, MappingProxyType(labels), buckets)
    METRICS[metric.name] = metric
    return metric


SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

# Every job
STATE = _metric("gauge", "job_state", "1 or 0", "1 for the state that the job is in.", state=STATES)
STARTED = _metric("gauge", "job_start_timestamp_seconds", "s since 1970", "When the job's process began.")
MOVED = _metric(
    "gauge", "job_last_progress_timestamp_seconds", "s since 1970", "When the job was last seen to get anything done."
)
ENDED = _metric("gauge", "job_end_timestamp_seconds", "s since 1970", "When the job ended; 0 as long as it runs.")
DEADLINE = _metric(
    "gauge", "job_deadline_timestamp_seconds", "s since 1970", "When the job is to be done; 0: any time."
)
VERSION = _metric("gauge", "model_version_info", "1", "1 for the model version in use.", model_version=OF_THE_MODEL)
RATE = _metric("gauge", "images_per_second", "images/s", "Images done a second, over the last minute.")
REMAINING = _metric("gauge", "images_remaining", "images", "Images that are still to be done.")
ETA = _metric("gauge", "eta_seconds", "s", "Seconds until the job is done, at the rate so far.")
COST = _metric(
    "gauge", "cost_usd", "USD", "What the cluster's nodes have cost since the job began, by the price table."
)
WORKERS = _metric("gauge", "workers", "processes", "Processes that hold a network and work for the job.")

# classify and stylize
INVENTORY = _metric("gauge", "inventory_images", "images", "Images of the run's inventory.")
IMAGES = _metric(
    "counter", "images", "images", "Images that a stage is done with, by outcome.", stage=STAGES, outcome=OUTCOMES
)
FAILURES = _metric(
    "counter", "failures", "images", "Images that ended as a failure, by stage and error.", stage=STAGES, reason=REASONS
)
BYTES = _metric("counter", "bytes", "bytes", "Bytes of pictures read and written.", direction=DIRECTIONS)
STAGE_SECONDS = _metric(
    "histogram", "stage_seconds", "s", "Seconds that a worker spent on one batch in a stage.", SECONDS, stage=STAGES
)
FILL = _metric("gauge", "batch_fill_ratio", "0 to 1", "Share of the batches' places that held an image, lately.")
QUEUE = _metric("gauge", "queue_shards", "shards", "Inventory shards that are not done: waiting, or worked on.")
BUSY = _metric(
    "gauge", "accelerator_busy_ratio", "0 to 1", "Share of the workers' time that the network computed, lately."
)
WAITED = _metric("counter", "prefetch_wait_seconds", "s", "Seconds that workers waited for the next batch of pictures.")
RETRIES = _metric(
    "counter",
    "storage_retries",
    "requests",
    "Requests to storage that were sent again, by the reason.",
    reason=("Conflict", "Throttled", "Unreachable"),
)
DRIFT = _metric(
    "gauge",
    "drift_psi",
    "PSI",
    "Population stability index of a distribution, since the last run of the model on this output.",
    distribution=OF_THE_MODEL,
)

# train
EPOCH = _metric("gauge", "epoch", "epochs", "Epochs that are done.")
EPOCHS = _metric("gauge", "epochs_planned", "epochs", "Epochs that the training is to have.")
STEP = _metric("gauge", "step", "steps", "Steps done in the epoch.")
LOSS = _metric("gauge", "loss", "", "Mean losses of the epoch so far; NaN where the training diverged.", loss=LOSSES)
DATA_WAIT = _metric("gauge", "data_wait_ratio", "0 to 1", "Share of the last epoch that steps waited for data.")
VALIDATION = _metric(
    "gauge", "validation", "", "Figures on the validation split, after the last epoch.", figure=VALIDATED
)
WARNINGS = _metric(
    "gauge", "training_warnings", "warnings", "What looked wrong in the last epoch without ending it: a GAN's collapse."
)
CHECKPOINT_SECONDS = _metric("gauge", "checkpoint_seconds", "s", "Seconds that the last checkpoint took.")
CHECKPOINTED = _metric("gauge", "checkpoint_timestamp_seconds", "s since 1970", "When the last checkpoint was written.")

# the page
PAGE_DOES = ("label", "redraw", "paint")
PAGE_REQUESTS = _metric(
    "counter", "page_requests", "requests", "What was asked of the page, and how it ended.", does=PAGE_DOES, ended=ENDS
)
PAGE_SECONDS = _metric(
    "histogram", "page_seconds", "s", "Seconds of a request, waiting and at work.", SECONDS, phase=("queue", "work")
)
PAGE_QUEUE = _metric("gauge", "page_queue", "requests", "Requests that wait for their turn.")
PAGE_WEIGHTS = _metric("gauge", "page_weights_bytes", "bytes", "Weights of models that the page holds.")

# retrain
RETRAINED = _metric("gauge", "retrain_last_success_timestamp_seconds", "s since 1970", "When retrain last ended well.")
DECISION = _metric("gauge", "retrain_decision", "1 or 0", "1 for what the last retrain decided.", decision=DECISIONS)
