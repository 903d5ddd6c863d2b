"""What draws, side by side: the same pictures by every model, and how near each comes to content and style."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from celebvision import styling
from celebvision.celeba.shards import DataSet, ReadRowGroup, row_groups
from celebvision.celeba.styles import StylePictures
from celebvision.config import SPEECH, VGG, EvaluateSettings
from celebvision.job import JobFailed, Outcome, Progress, code_version, progress
from celebvision.logs import say
from celebvision.models import lpips
from celebvision.models.features import Features, fid, kid, make_features
from celebvision.models.gatys import styles_of
from celebvision.models.lpips import LPIPS
from celebvision.models.perceptual import Perceptual
from celebvision.pretrained import weights_of
from celebvision.registry import ModelVersion
from celebvision.sheet import INK, PAPER, boxes
from celebvision.storage import open_store, write_table

PHOTOS = "photos"  # the row of the pictures as they are
BATCH = 16
SEED = 0  # of the style set's crops
SHOWN = 8  # pictures on the sheet
SIDES = (128, 256)  # least and largest cell of the sheet, in pixels
HEAD, GAP = 32, 2  # pixels of its head and between its cells
MEANS = ("content_loss", "style_loss", "lpips")
PRINTED = (*MEANS, "content_ratio", "style_ratio", "fid", "kid", "artfid", "pictures_per_min")


def evaluate_styles(settings: EvaluateSettings, data: DataSet, models: Sequence[ModelVersion]) -> Outcome:
    """Let each model draw the first pictures of the split, and write what became of them; print the figures.

    `predictions/<model>.parquet` holds content and style loss, LPIPS and ms of each picture, `evaluation.json` the
    figures of each model and what they were measured by, `comparison.png` some of the pictures, `losses.png` how
    losses and LPIPS are spread. The pictures as they are have a row of their own, `photos`. With the same words all but
    the times comes out the same.

    Raises:
        JobFailed: there is no style, or a model does not have it; weights that do not fit; too few pictures.
        RegistryError: a model is damaged.
    """
    if not settings.style:
        raise JobFailed("style: is missing; give --style, the picture that style_loss is measured against, or several")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    drawing: dict[str, styling.Redraws] = {PHOTOS: Undrawn()}
    drawing |= {f"{model.name}@{model.version}": _drawing(settings, model, device) for model in models}
    ids, photos = _photos(settings, data)
    styles = [styling.shown(uri) for uri in settings.style]
    style_set = style_set_of(settings, styles, len(photos))
    yardstick = Yardstick.of(settings, styles, style_set, device)
    output = open_store(settings.output)
    figures: dict[str, dict[str, float]] = {}
    shown: dict[str, Tensor] = {}
    losses: dict[str, dict[str, list[float]]] = {name: {} for name in MEANS}
    for title, draws in drawing.items():
        rows, features, shown[title] = _measured(title, draws, photos, yardstick, settings.batch_size or BATCH)
        write_table(output, f"predictions/{title}.parquet", pa.table({"image_id": ids, **rows}))
        figures[title] = _figures(rows, *yardstick.distances(features))
        for name in MEANS:
            losses[name][title.replace("@", "\n")] = rows[name]
    _add_ratios(figures)
    output.put("comparison.png", comparison(styles, shown))
    output.put("losses.png", boxes(losses))
    content = _words(settings, data, yardstick) | {"images": len(photos), "models": figures}
    output.put("evaluation.json", json.dumps(content, indent=1).encode())
    for title, values in figures.items():
        line = "  ".join(f"{name} {values[name]:.4g}" for name in PRINTED if name in values)
        say(f"{title}: {line}")
    return Outcome({"output": settings.output, "images": len(photos), "models": figures})


class Undrawn:
    """Leaves pictures as they are: the yardstick's own row."""

    columns: list[tuple[str, pa.DataType]] = []  # noqa: RUF012 - the same of each
    steps: int | None = None

    def draw(self, pictures: Tensor, tell: styling.Tell) -> tuple[Tensor, list[styling.Figures]]:
        return pictures, [{}] * len(pictures)


@dataclass(frozen=True)
class Yardstick:
    """What all models are measured by: in float32, whatever they draw in and whatever they tell of themselves."""

    losses: Perceptual
    style: Mapping[str, Tensor]  # layer: 1 C C
    lpips: LPIPS
    features: Features
    style_features: Tensor  # M F, of the style set
    device: torch.device

    @classmethod
    def of(
        cls, settings: EvaluateSettings, styles: Sequence[Tensor], style_set: NDArray[np.uint8], device: str
    ) -> Yardstick:
        """Raises `JobFailed` where weights do not fit or features are unknown, `StorageError` without the weights."""
        on = torch.device(device)
        weights = weights_of(settings.weights, settings.arch)
        losses = styling.perceptual(settings.perceptual, settings.arch, weights, on)
        losses.vgg.float()
        style = styles_of(losses, styles, settings.mixture, settings.size, 1)[0].statistics
        features = _features(settings).to(on)
        return cls(
            losses,
            {layer: value.to(on) for layer, value in style.items()},
            _lpips(settings).to(on),
            features,
            features.of(torch.from_numpy(style_set)),
            on,
        )

    @torch.inference_mode()
    def figures(self, photos: Tensor, drawn: Tensor) -> dict[str, list[float]]:
        """`content_loss`, `style_loss` and `lpips` of each picture; `photos` and `drawn`: uint8 B H W 3."""
        before, after = (part.to(self.device).permute(0, 3, 1, 2).float() / 255 for part in (photos, drawn))
        found = self.losses.losses(after, self.losses.content(before), self.style).by_name
        return {name: value.tolist() for name, value in (found | {"lpips": self.lpips(before, after)}).items()}

    def distances(self, features: Tensor) -> tuple[float, float]:
        """FID and KID of drawn pictures, by their features, N F, to the style set."""
        both = (features, self.style_features, self.features.standardise)
        return fid(*both), kid(*both)


def artfid(mean_lpips: float, distance: float) -> float:
    """ArtFID of the mean LPIPS to the photos and the FID to the style set (Wright and Ommer 2022, arXiv:2207.12280).

    Departures from the paper: LPIPS is over VGG-16 and not AlexNet; FID is of the features that were asked for and
    not of an Inception that learnt art, and not extrapolated to a set without end. Compare figures with each other.
    """
    return (1 + mean_lpips) * (1 + distance)


def style_set_of(settings: EvaluateSettings, styles: Sequence[Tensor], count: int) -> NDArray[np.uint8]:
    """What pictures as drawn are held against as a set, uint8 M S S 3, M at most `count`: the same each time.

    From style shards where there are some, else random crops of the style pictures, in the shares of their weights.

    Raises:
        JobFailed: no style set, or less than two pictures.
    """
    if settings.style_data:
        pictures = StylePictures(settings.style_data, settings.size, settings.style_crop)
        if DataSet.load(settings.style_data).rows("train") < count:
            pictures.load(SEED)  # or `fixed` would read the set again for each further crop of a picture
        found = pictures.fixed(count)
        if len(found) < 2:
            raise JobFailed(f"{settings.style_data}: gives {len(found)} pictures; at least 2 are needed")
        return found
    generator = np.random.default_rng(SEED)
    shares = np.array(settings.mixture) / sum(settings.mixture)
    crops = []
    for number in generator.choice(len(styles), count, p=shares):
        picture = styles[number][0].numpy()
        height, width = picture.shape[:2]
        side = max(1, round(generator.uniform(*settings.style_crop) * min(height, width)))
        top, left = generator.integers(height - side + 1), generator.integers(width - side + 1)
        crop = Image.fromarray(picture[top : top + side, left : left + side])
        crops.append(np.asarray(crop.resize((settings.size, settings.size), Image.Resampling.BICUBIC)))
    return np.stack(crops)


def comparison(styles: Sequence[Tensor], shown: Mapping[str, Tensor]) -> bytes:
    """A PNG of drawn pictures: a row a picture, a column a model under its name, and the style pictures before them.

    Args:
        styles: uint8, 1 H W 3 each.
        shown: by the model's name, uint8 B S S 3 each.
    """
    columns = {"style": [style[0] for style in styles], **{title: list(drawn) for title, drawn in shown.items()}}
    rows = max(len(drawn) for drawn in shown.values())
    least, largest = SIDES
    side = min(max(next(iter(shown.values())).shape[1], least), largest)
    sheet = Image.new("RGB", (len(columns) * (side + GAP) - GAP, HEAD + rows * (side + GAP) - GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, (title, pictures) in enumerate(columns.items()):
        left = column * (side + GAP)
        for line, words in enumerate(title.split("@")):
            pen.text((left + side / 2, 9 + 14 * line), words, INK, _font(words, side), anchor="mm")
        for row, picture in enumerate(pictures[:rows]):
            cell = ImageOps.pad(Image.fromarray(picture.numpy()), (side, side), color=PAPER)
            sheet.paste(cell, (left, HEAD + row * (side + GAP)))
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    return content.getvalue()


def _font(words: str, width: int) -> Any:
    """As large as the words have room for."""
    fonts = [ImageFont.load_default(size) for size in (12, 11, 10, 9, 8, 7)]
    return next((font for font in fonts if font.getlength(words) <= width), fonts[-1])


def _drawing(settings: EvaluateSettings, model: ModelVersion, device: str) -> styling.Redraws:
    """A model ready to draw; a CycleGAN has a style of its own, and is measured against the others' all the same."""
    own = model.architecture == "cyclegan"
    words = settings.model_copy(update={"style": [], "style_weights": []}) if own else settings
    tensors = styling.load(words, settings.registry, model, settings.size)
    return styling.redraws(words, model, tensors, device)


def _photos(settings: EvaluateSettings, data: DataSet) -> tuple[list[str], Tensor]:
    """`image_id` and pixels, uint8 N S S 3, of the first pictures of the split: the same each time."""
    read = ReadRowGroup(settings.data, (), settings.size, settings.size, with_image_id=True)
    ids: list[str] = []
    parts: list[Tensor] = []
    for group in row_groups(data, settings.split):
        for batch in read({"path": np.array([group.path]), "number": np.array([group.number])}):
            ids += batch["image_id"].tolist()
            parts.append(torch.from_numpy(batch["image"]))
            if len(ids) >= settings.images:
                return ids[: settings.images], torch.cat(parts)[: settings.images]
    if len(ids) < 2:
        raise JobFailed(f"{settings.data}: the {settings.split} split has {len(ids)} picture; at least 2 are needed")
    return ids, torch.cat(parts)


def _features(settings: EvaluateSettings) -> Features:
    try:
        features = make_features(settings.features)
    except ValueError as error:
        raise JobFailed(f"features: {error}") from None
    try:
        features.load(weights_of(settings.features_weights, features.name))
    except ValueError as error:
        raise JobFailed(f"features_weights: {settings.features_weights}: {error}") from None
    return features


def _lpips(settings: EvaluateSettings) -> LPIPS:
    """With the learnt weights of its authors, which torchmetrics brings with it."""
    file = files("torchmetrics") / "functional" / "image" / "lpips_models" / "vgg.pth"
    learnt = torch.load(io.BytesIO(file.read_bytes()), weights_only=True, map_location="cpu")
    distance = LPIPS()
    try:
        distance.load(weights_of(settings.lpips_weights, lpips.ARCH), learnt)
    except ValueError as error:
        raise JobFailed(f"lpips_weights: {settings.lpips_weights}: {error}") from None
    return distance


def _measured(
    title: str, draws: styling.Redraws, photos: Tensor, yardstick: Yardstick, batch_size: int
) -> tuple[dict[str, list[float]], Tensor, Tensor]:
    """The figures of each picture by name, its features, N F, and the first pictures as drawn."""
    rows: dict[str, list[float]] = {}
    features, shown = [], []
    if draws.steps is None:
        draws.draw(photos[:batch_size], lambda share, pictures: None)  # the first time is slower, and says nothing
    with progress(f"evaluate {title}", len(photos), "images") as show:
        for start in range(0, len(photos), batch_size):
            part = photos[start : start + batch_size]
            drawn, told = draws.draw(part, partial(_tell, show, start, len(part)))
            found = yardstick.figures(part, drawn) | {"ms": [one["ms"] for one in told if "ms" in one]}
            for name, values in found.items():
                rows.setdefault(name, []).extend(values)
            features.append(yardstick.features.of(drawn))
            if start < SHOWN:
                shown.append(drawn)
            show(start + len(part))
    return {name: values for name, values in rows.items() if values}, torch.cat(features), torch.cat(shown)[:SHOWN]


def _tell(show: Progress, start: int, count: int, share: float, pictures: Tensor | None) -> None:
    show(start + share * count)


def _figures(rows: Mapping[str, Sequence[float]], distance: float, kernel_distance: float) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name, values in rows.items():
        figures |= {name: float(np.mean(values)), f"{name}_median": float(np.median(values))}
    if "ms" in figures:
        figures["pictures_per_min"] = 60_000 / figures["ms"]
    score = artfid(figures["lpips"], distance)
    return figures | {"fid": distance, "kid": kernel_distance, "artfid": score}


def _add_ratios(figures: dict[str, dict[str, float]]) -> None:
    """Each model's losses as multiples of the optimisation's on the same pictures, where that is among them."""
    optimum = next((values for title, values in figures.items() if title.startswith(f"{VGG}@")), None)
    if optimum is None:
        return
    for values in figures.values():
        for kind in ("content", "style"):
            values[f"{kind}_ratio"] = values[f"{kind}_loss"] / max(optimum[f"{kind}_loss"], 1e-12)


def _words(settings: EvaluateSettings, data: DataSet, yardstick: Yardstick) -> dict[str, Any]:
    """What was measured, on what, by what."""
    of_shards = settings.style_data is not None
    style_set: dict[str, Any] = {"of": "style_data" if of_shards else "random crops of style"}
    style_set |= {"digest": DataSet.load(str(settings.style_data)).digest} if of_shards else {"seed": SEED}
    on_cpu = yardstick.device.type == "cpu"
    return settings.model_dump(mode="json", exclude={*SPEECH, "output"}) | {
        "data_digest": data.digest,
        "batch_size": settings.batch_size or BATCH,
        "device": "cpu" if on_cpu else torch.cuda.get_device_name(yardstick.device),
        "code_version": code_version(),
        "lpips_layers": [f"{lpips.ARCH}:{layer}" for layer in lpips.LAYERS],
        "style_set": style_set | {"pictures": len(yardstick.style_features)},
    }
