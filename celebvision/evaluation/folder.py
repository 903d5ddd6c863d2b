"""A folder of pictures that somebody labelled: read as it is, broken ones and all."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from celebvision import images
from celebvision.celeba.labelled import KEY
from celebvision.celeba.schema import ATTRIBUTES
from celebvision.celeba.shards import check_targets
from celebvision.config import MIB
from celebvision.evaluation.predict import IMAGE_ID, Batch, answers, load
from celebvision.images import UndecodableImage
from celebvision.registry import ModelVersion
from celebvision.storage import StorageError, open_store

TOGETHER = 64  # pictures of a batch
MAX_BYTES = 64 * MIB  # a larger object is no picture, and must not fill the memory


@dataclass(frozen=True)
class LabelledFolder:
    """Pictures under a URI, and the table of their labels; what is broken among them costs itself alone."""

    uri: str
    labels: pa.Table  # `key` string, and a bool column for each known attribute
    failures: dict[str, str] = field(default_factory=dict)  # by key, the reason
    split: str | None = None

    @property
    def attributes(self) -> list[str]:
        return [name for name in ATTRIBUTES if name in self.labels.column_names]

    @property
    def digest(self) -> str:
        """SHA-256 of the labels alone: for it, no picture is read."""
        return hashlib.sha256(json.dumps(self.labels.to_pydict()).encode()).hexdigest()

    def predict(self, registry: str, model: ModelVersion, batch_size: int) -> pa.Table:
        """Answers to all pictures that did not fail before; those that fail now go to `failures`.

        Raises:
            JobFailed: the labels lack a target of the model, or an answer is no number.
            RegistryError: the model is damaged.
        """
        check_targets(self.uri, model.targets, self.attributes)
        classifier = load(registry, model)
        rows = self.labels.filter(pc.invert(pc.is_in(self.labels[KEY], pa.array(list(self.failures), pa.string()))))
        size = classifier.preprocessing
        batches = self._batches(rows, size.height, size.width)
        return answers(classifier, model.name, batches, len(rows), self.attributes, batch_size)

    def pictures(self, ids: Collection[str]) -> Iterator[tuple[str, bytes]]:
        keys = sorted(ids)
        for key, data in zip(keys, self._fetched(keys), strict=True):
            yield key, data if isinstance(data, bytes) else b""

    def _batches(self, rows: pa.Table, height: int, width: int) -> Iterator[Batch]:
        keys = rows[KEY].to_pylist()
        labels = np.stack([rows[name].to_numpy() for name in self.attributes], axis=1).astype(np.float32)
        pixels: list[NDArray[np.uint8]] = []
        read: list[int] = []
        for row, data in enumerate(self._fetched(keys)):
            try:
                if isinstance(data, Exception):
                    raise data
                pixels.append(images.decode(data, height, width))
                read.append(row)
            except (StorageError, ValueError, UndecodableImage) as error:
                self.failures[keys[row]] = f"{type(error).__name__}: {error}"
            if read and (len(read) == TOGETHER or row + 1 == len(keys)):
                ids = np.array([keys[number] for number in read], object)
                yield {IMAGE_ID: ids, "image": np.stack(pixels), "label": labels[read]}
                pixels, read = [], []

    def _fetched(self, keys: list[str]) -> Iterator[bytes | StorageError | ValueError]:
        """Objects in the order of their keys, some of them fetched ahead."""
        store = open_store(self.uri)

        def fetch(key: str) -> bytes | StorageError | ValueError:
            try:
                data = store.get_range(key, 0, MAX_BYTES + 1)
            except (StorageError, ValueError) as error:  # ValueError: a key that names no file
                return error
            return data if len(data) <= MAX_BYTES else ValueError(f"over {MAX_BYTES} bytes, which no picture has")

        with ThreadPoolExecutor(store.in_flight, "fetch") as pool:
            rest = (pool.submit(fetch, key) for key in keys)
            ahead: deque[Future[bytes | StorageError | ValueError]] = deque(islice(rest, 2 * store.in_flight))
            while ahead:
                yield ahead.popleft().result()
                ahead.extend(islice(rest, 1))
