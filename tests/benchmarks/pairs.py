"""What a style model makes of photos whose drawings by an artist are known: the same people, in the same order.

    python -m tests.benchmarks.pairs --registry URI --model cyclegan-sketch --photos FOLDER --drawings FOLDER \
        --weights vgg16.safetensors [--size 64] [--sheet FILE.png]

One JSON object on stdout. KID (VGG-16 relu4_3, channel means and deviations, standardised) of the photos, of what the
model draws, and of the photos merely made grey, each against the drawings; `kid_share` is that of the model as a share
of the photos'. The mean absolute difference, 0..1, of what is drawn and of the photo from the person's own drawing; and
of the photo from its way there and back.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from celebvision import images, registry
from celebvision.models.features import kid, make_features
from celebvision.models.stylizer import Stylizer
from celebvision.training.cyclegan import grid
from celebvision.training.cyclegan_recipe import REVERSE

FEATURES = "vgg16:relu4_3"
SHOWN = 12


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m tests.benchmarks.pairs", description=__doc__)
    for name in ("registry", "model", "photos", "drawings", "weights"):
        words.add_argument(f"--{name}", required=True)
    words.add_argument("--size", type=int, default=64)
    words.add_argument("--sheet", type=Path)
    words.add_argument("--unpaired", action="store_true", help="the drawings are of others: no distance to one's own")
    given = words.parse_args()
    photos, drawings = (read(Path(folder), given.size) for folder in (given.photos, given.drawings))
    to_drawn = stylizer(given.registry, given.model).draw(torch.from_numpy(photos))
    drawn = to_drawn.numpy()
    again = stylizer(given.registry, f"{given.model}{REVERSE}").draw(to_drawn).numpy()
    features = make_features(FEATURES)
    features.load(safetensors.torch.load_file(given.weights))
    grey = np.repeat(photos.mean(axis=3, keepdims=True).round().astype(np.uint8), 3, axis=3)
    sets = {"photos": photos, "drawn": drawn, "grey": grey}
    of = {name: features.of(torch.from_numpy(pictures)) for name, pictures in sets.items()}
    theirs = features.of(torch.from_numpy(drawings))
    distances = {f"kid_{name}": kid(features_of, theirs, standardise=True) for name, features_of in of.items()}
    figures = distances | {
        f"kid_share{suffix}": distances[f"kid_{name}"] / distances["kid_photos"]
        for suffix, name in (("", "drawn"), ("_grey", "grey"))
    }
    figures["cycle_l1"] = difference(again, photos)
    if not given.unpaired:
        figures |= {"drawn_l1": difference(drawn, drawings), "photos_l1": difference(photos, drawings)}
    if given.sheet:
        rows = [torch.from_numpy(pictures[:SHOWN]) for pictures in (photos, drawn, again, drawings)]
        given.sheet.write_bytes(images.encode(grid(rows), "png"))
    print(json.dumps({"model": given.model, "size": given.size, **figures}))


def stylizer(home: str, model: str) -> Stylizer:
    version = registry.resolve(home, model)
    return Stylizer(registry.assemble(version, registry.load_state(home, version)))  # type: ignore[arg-type]


def read(folder: Path, size: int) -> NDArray[np.uint8]:
    return np.stack([images.decode(file.read_bytes(), size, size) for file in sorted(folder.iterdir())])


def difference(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> float:
    """Mean absolute difference, 0..1."""
    return float(np.abs(ours.astype(float) - theirs).mean() / 255)


if __name__ == "__main__":
    main()
