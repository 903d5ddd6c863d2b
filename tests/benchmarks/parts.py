"""How fast the parts are on this machine: decoding, the networks, and telling what they do.

Each figure is the median of several rounds; the pictures are drawn by code, 178×218, quality 95.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import ray
import torch

from celebvision import images, ray_session
from celebvision.batch.clock import Clock
from celebvision.batch.tell import Teller
from celebvision.celeba.drawn import draw_attributes
from celebvision.celeba.face import draw_face
from celebvision.config import WatchedSettings
from celebvision.metrics import Figures, Telling
from celebvision.models import create
from celebvision.models.classifier import Classifier

ROUNDS = 5
PICTURES = 200
BATCH = 64
SHARD = 1000


def rate(work: Callable[[], int]) -> float:
    """Median of things done a second, over the rounds, after one that does not count."""
    work()
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        rates.append(work() / (time.perf_counter() - started))
    return statistics.median(rates)


def drawn() -> list[bytes]:
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(PICTURES):
        content = io.BytesIO()
        draw_face(rng, draw_attributes(rng, male=bool(number % 2))).save(content, "JPEG", quality=95)
        pictures.append(content.getvalue())
    return pictures


def measured() -> dict[str, float]:
    """Each part's rate, by name; on stderr as well, in words."""
    pictures = drawn()

    def decode(height: int, width: int) -> int:
        for data in pictures:
            images.decode(data, height, width)
        return len(pictures)

    def forward(classifier: Classifier) -> int:
        size = classifier.preprocessing
        batch = torch.zeros(BATCH, size.height, size.width, 3, dtype=torch.uint8)
        classifier.probabilities(batch)
        return BATCH

    teller = Teller(Telling(WatchedSettings(), Figures("classify", "cnn", "labels")))

    def tell() -> int:
        clock = Clock()
        for at in range(SHARD):
            clock.picture("key", 1e-4, 1e-4, 1000)
            if at % BATCH == BATCH - 1:
                clock.seconds["infer"] += 0.1
                clock.batch(BATCH, BATCH)
        teller.shard({"results": SHARD}, clock.stop(), left=1)
        return SHARD

    cnn = Classifier(create("cnn"), ("Male",))
    inception = Classifier(create("inception_v3", height=139, width=113, aux=False), ("Male",))
    figures = {
        "decode_to_109x89_images_per_s_one_thread": rate(lambda: decode(109, 89)),
        "decode_to_299x299_images_per_s_one_thread": rate(lambda: decode(299, 299)),
        "cnn_images_per_s": rate(lambda: forward(cnn)),
        "inception_v3_139x113_images_per_s": rate(lambda: forward(inception)),
    }
    ray_session.start(num_cpus=1)  # which exports what is told
    figures["metrics_told_of_images_per_s"] = rate(tell)
    ray.shutdown()
    for name, figure in figures.items():
        print(f"{name:<44} {figure:>10.0f}", file=sys.stderr)
    return {name: round(figure, 1) for name, figure in figures.items()}
