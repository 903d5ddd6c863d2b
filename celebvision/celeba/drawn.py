"""Data sets and buckets of faces drawn by code, for the demo and the tests: nobody's picture among them."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from celebvision.celeba.face import HAIRS, HEIGHT, WIDTH, draw_face
from celebvision.celeba.schema import ATTRIBUTES

ORIENTATION = 0x0112  # EXIF tag
IMAGES_PER_IDENTITY = 3
SHARE_MALE = 0.42  # as in CelebA

# How often each attribute is seen in women and in men, roughly as in CelebA; hair colour and beard come below.
CHANCES = {
    "5_o_Clock_Shadow": (0.0, 0.22), "Arched_Eyebrows": (0.42, 0.06), "Attractive": (0.68, 0.28),
    "Bags_Under_Eyes": (0.1, 0.35), "Bald": (0.0, 0.06), "Bangs": (0.22, 0.07), "Big_Lips": (0.3, 0.16),
    "Big_Nose": (0.1, 0.42), "Blurry": (0.05, 0.05), "Bushy_Eyebrows": (0.05, 0.26), "Chubby": (0.02, 0.12),
    "Double_Chin": (0.02, 0.1), "Eyeglasses": (0.03, 0.12), "Goatee": (0.0, 0.15), "Heavy_Makeup": (0.6, 0.0),
    "High_Cheekbones": (0.56, 0.3), "Mouth_Slightly_Open": (0.53, 0.42), "Mustache": (0.0, 0.1),
    "Narrow_Eyes": (0.1, 0.13), "Oval_Face": (0.33, 0.22), "Pale_Skin": (0.06, 0.02), "Pointy_Nose": (0.36, 0.16),
    "Receding_Hairline": (0.05, 0.13), "Rosy_Cheeks": (0.11, 0.0), "Sideburns": (0.0, 0.13), "Smiling": (0.54, 0.4),
    "Straight_Hair": (0.2, 0.22), "Wavy_Hair": (0.45, 0.12), "Wearing_Earrings": (0.31, 0.02),
    "Wearing_Hat": (0.03, 0.08), "Wearing_Lipstick": (0.8, 0.01), "Wearing_Necklace": (0.2, 0.02),
    "Wearing_Necktie": (0.0, 0.17), "Young": (0.88, 0.64),
}  # fmt: skip


def draw_attributes(rng: np.random.Generator, male: bool) -> dict[str, bool]:
    """All of CelebA's attributes for one made-up picture, about as often as CelebA has them, none against another."""
    has = {name: bool(rng.random() < chance[male]) for name, chance in CHANCES.items()} | {"Male": male}
    hair = ("", "Black_Hair", "Brown_Hair", "Blond_Hair")[rng.choice(4, p=(0.25, 0.28, 0.25, 0.22))]
    if not has["Young"] and rng.random() < 0.4:
        hair = "Gray_Hair"
    has |= {name: name == hair and not has["Bald"] for name in HAIRS}
    if has["Bald"]:
        has |= dict.fromkeys(("Bangs", "Straight_Hair", "Wavy_Hair", "Receding_Hairline", "Sideburns"), False)
    has["Straight_Hair"] &= not has["Wavy_Hair"]
    bearded = any(has[name] for name in ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns"))
    has["No_Beard"] = not bearded and not (male and rng.random() < 0.1)
    return {name: has[name] for name in ATTRIBUTES}


def write_dataset(folder: Path, count: int, seed: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Write `count` drawn faces the way CelebA is published: same names, same text files, split 80/10/10.

    Each person has up to three pictures, all in one split. The same `count`, `seed` and `size` give the same bytes.
    """
    (folder / "img_align_celeba").mkdir(parents=True, exist_ok=True)
    rows, splits, identities = [], [], []
    first_of = (0, round(count * 0.8), round(count * 0.9), count)
    for split in range(3):
        for index in range(first_of[split], first_of[split + 1]):
            name = f"{index + 1:06d}.jpg"
            identity = split * count + (index - first_of[split]) // IMAGES_PER_IDENTITY + 1
            attributes, image = _portrait(seed, index, identity, size)
            (folder / "img_align_celeba" / name).write_bytes(_jpeg(image))
            rows.append(f"{name} " + " ".join(" 1" if attributes[each] else "-1" for each in ATTRIBUTES))
            splits.append(f"{name} {split}")
            identities.append(f"{name} {identity}")
    header = [str(count), " ".join(ATTRIBUTES) + " "]
    for text_file, lines in (
        ("list_attr_celeba.txt", header + rows),
        ("list_eval_partition.txt", splits),
        ("identity_CelebA.txt", identities),
    ):
        (folder / text_file).write_text("\n".join(lines) + "\n")


def messy_bucket(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Key and bytes of `count` objects as they lie about in a real bucket: faces, odd files, and three broken ones.

    All under `faces/` and `odd/` can be decoded; nothing under `broken/` can.
    """
    odd = ("odd/portrait.png", "odd/my holiday 🎉 photo.jpg", "odd/cmyk.jpg", "odd/rotated by exif.jpg")
    broken = ("broken/truncated.jpg", "broken/empty.jpg", "broken/text.jpg")
    if count < len(odd) + len(broken):
        raise ValueError(f"count is {count}; a messy bucket has at least {len(odd) + len(broken)} objects")
    faces = [f"faces/{index + 1:04d}.jpg" for index in range(count - len(odd) - len(broken))]
    for index, key in enumerate((*faces, *odd, *broken)):
        _, image = _portrait(seed, index, index, (WIDTH, HEIGHT))
        match key:
            case "odd/portrait.png":
                buffer = io.BytesIO()
                image.save(buffer, "PNG")
                yield key, buffer.getvalue()
            case "odd/cmyk.jpg":
                yield key, _jpeg(image.convert("CMYK"))
            case "odd/rotated by exif.jpg":  # a camera held on its side: upright once turned clockwise
                exif = Image.Exif()
                exif[ORIENTATION] = 6
                yield key, _jpeg(image.transpose(Transpose.ROTATE_90), exif)
            case "broken/truncated.jpg":
                data = _jpeg(image)
                yield key, data[: len(data) // 2]
            case "broken/empty.jpg":
                yield key, b""
            case "broken/text.jpg":
                yield key, b"This was never a picture, whatever its name says.\n"
            case _:
                yield key, _jpeg(image)


def _portrait(seed: int, index: int, identity: int, size: tuple[int, int]) -> tuple[dict[str, bool], Image.Image]:
    """One picture of one person: a person's sex is the same in all pictures, the rest is the picture's."""
    male = bool(np.random.default_rng([seed, 0, identity]).random() < SHARE_MALE)
    rng = np.random.default_rng([seed, 1, index])
    attributes = draw_attributes(rng, male)
    return attributes, draw_face(rng, attributes, size)


def _jpeg(image: Image.Image, exif: Image.Exif | None = None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, exif=exif or b"")
    return buffer.getvalue()
