"""Torch's `DataLoader` the way its documentation shows it: Pillow and torchvision in a `Dataset`, float32, eager."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tests.benchmarks.peers.task import Task, parser, task_of

BATCH = 64
WORKERS = 2


class Images(Dataset[tuple[Tensor, int]]):
    def __init__(self, task: Task, names: list[str], transform: transforms.Compose) -> None:
        self.task, self.names, self.transform = task, names, transform

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.open(io.BytesIO(self.task.read(self.names[index]))).convert("RGB")
        return self.transform(image), index


def main() -> None:
    task = task_of(parser().parse_args())
    network = task.network()
    size = task.preprocessing()
    transform = transforms.Compose(
        [
            transforms.Resize((size.height, size.width)),
            transforms.ToTensor(),
            transforms.Normalize(size.mean, size.std),
        ]
    )
    names = task.names()
    probabilities: list[float] = []
    with torch.no_grad():
        for inputs, _ in DataLoader(Images(task, names, transform), batch_size=BATCH, num_workers=WORKERS):
            probabilities += torch.sigmoid(network(inputs))[:, 0].tolist()
            task.answered(len(inputs))
    task.write(names, probabilities)
    task.done(len(names))


if __name__ == "__main__":
    main()
