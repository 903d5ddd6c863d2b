"""Torch's `DataLoader` tuned by hand: scaled decoding in workers, whole uint8 batches, folded norms, bfloat16.

It takes our own decoder and `Classifier`, which do the first and the last two, and keeps freed memory as ours does:
what is left to compare is the job around them. `python -m tests.benchmarks tune` tries the settings; the defaults are
the best of two cores.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from celebvision import images
from celebvision.memory import keep_freed_memory
from celebvision.models.classifier import Classifier
from celebvision.models.preprocessing import Preprocessing
from tests.benchmarks.peers.task import Task, parser, task_of


class Batches(Dataset[Tensor]):
    """A batch per index list, uint8 B H W 3, so that workers hand over one tensor and nothing is collated."""

    def __init__(self, task: Task, names: list[str], size: Preprocessing) -> None:
        self.task, self.names, self.size = task, names, size

    def __getitem__(self, indices: list[int]) -> Tensor:
        height, width = self.size.height, self.size.width
        pixels = [images.decode(self.task.read(self.names[index]), height, width) for index in indices]
        return torch.from_numpy(np.stack(pixels))


def answers(classifier: Classifier, batch: Tensor, size: int) -> list[float]:
    """The last batch is filled up: another shape would be compiled anew."""
    filled = torch.cat([batch, batch.new_zeros(size - len(batch), *batch.shape[1:])])
    answers: list[float] = classifier.probabilities(filled)[: len(batch), 0].tolist()
    return answers


def settings() -> argparse.Namespace:
    words = parser()
    words.add_argument("--batch", type=int, default=64)
    words.add_argument("--workers", type=int, default=2)
    words.add_argument("--threads", type=int, default=2)
    words.add_argument("--compiled", type=int, default=0)
    return words.parse_args()


def main() -> None:
    words = settings()
    keep_freed_memory()
    task = task_of(words)
    classifier = Classifier(task.network(), ("Male",))
    if words.compiled:
        classifier.network.compile()
    torch.set_num_threads(words.threads)
    names = task.names()
    sampler = BatchSampler(SequentialSampler(names), words.batch, drop_last=False)
    dataset = Batches(task, names, classifier.preprocessing)
    loader = DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=words.workers)
    probabilities: list[float] = []
    for batch in loader:
        probabilities += answers(classifier, batch, words.batch)
        task.answered(len(batch))
    task.write(names, probabilities)
    task.done(len(names))


if __name__ == "__main__":
    main()
