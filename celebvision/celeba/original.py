"""CelebA's own files, as they are published and as Kaggle repacks them: the labels, and where each picture lies."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from celebvision.celeba.labelled import LABEL_FILES
from celebvision.celeba.schema import ATTRIBUTES, BOX, LANDMARKS, SPLITS
from celebvision.job import JobFailed
from celebvision.storage import NotFound, Store

FOLDERS = ("", "Anno/", "Eval/", "Img/")  # flat as on Kaggle, or the official download's folders
IMAGES = "img_align_celeba"
ZIP_SIGNATURE = b"PK\3\4"
ZIP_ENCRYPTED = 1  # of a member's flag bits
ZIP_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
SHARE_OF_SPLIT = {"train": 0.8, "valid": 0.9, "test": 1.0}  # cumulative, where the source has no partition


@dataclass(frozen=True)
class Place:
    """Where one picture's bytes are: an object of its own, or a member of a zip (then `start` is not None)."""

    key: str
    size: int  # bytes of the picture itself
    start: int | None = None
    span: int = 0  # bytes from `start` to the next member's
    packed: int = 0  # bytes of the picture as the zip stores it
    crc: int = 0
    deflated: bool = False

    def read(self, store: Store) -> bytes:
        """The picture's bytes as they were published.

        Raises:
            StorageError: the object cannot be had.
            ValueError: the zip's member is damaged.
        """
        if self.start is None:
            return store.get(self.key)
        member = store.get_range(self.key, self.start, self.span)
        if len(member) < ZIP_LOCAL_HEADER.size:
            raise ValueError(f"zip member at byte {self.start} of {self.key} is cut off")
        signature, *_, name_length, extra_length = ZIP_LOCAL_HEADER.unpack_from(member)
        if signature != ZIP_SIGNATURE:
            raise ValueError(f"no zip member at byte {self.start} of {self.key}")
        begin = ZIP_LOCAL_HEADER.size + name_length + extra_length
        data = member[begin : begin + self.packed]
        if self.deflated:
            data = self._inflated(data)
        if zlib.crc32(data) != self.crc:
            raise ValueError(f"zip member at byte {self.start} of {self.key} does not match its checksum")
        return data

    def _inflated(self, packed: bytes) -> bytes:
        """At most the bytes that the zip announced, however many a bomb would give."""
        try:
            return zlib.decompressobj(wbits=-15).decompress(packed, max(self.size, 1))
        except zlib.error as error:
            raise ValueError(f"zip member at byte {self.start} of {self.key} is damaged: {error}") from None


def find_images(store: Store) -> dict[str, Place]:
    """Every picture by its `image_id` (`000001.jpg`), from the folder or else from the zip.

    Raises:
        JobFailed: there is neither.
    """
    for folder in FOLDERS:
        found = dict(_in_folder(store, f"{folder}{IMAGES}/"))
        if found:
            return found
    for folder in FOLDERS:
        try:
            return dict(_in_zip(store, f"{folder}{IMAGES}.zip"))
        except NotFound:
            continue
    raise JobFailed(f"{store.uri}: holds neither {IMAGES}/ with pictures nor {IMAGES}.zip")


def _in_folder(store: Store, folder: str) -> Iterator[tuple[str, Place]]:
    for stat in store.list(folder):
        name = stat.key.rpartition("/")[2]
        if not is_hidden(name):
            yield name, Place(stat.key, stat.size)


def is_hidden(name: str) -> bool:
    """A folder's marker, or what a Mac leaves beside every picture it packs (`._000001.jpg`, `.DS_Store`)."""
    return not name or name.startswith(".")


def _in_zip(store: Store, key: str) -> Iterator[tuple[str, Place]]:
    store.stat(key)
    try:
        with store.open(key) as stream, zipfile.ZipFile(stream) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
            ends = [member.header_offset for member in members[1:]] + [archive.start_dir]
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise JobFailed(f"{store.uri}/{key}: not a whole zip file: {error}") from None
    for member, end in zip(members, ends, strict=True):
        name = member.filename.rpartition("/")[2]
        if is_hidden(name):
            continue
        if member.flag_bits & ZIP_ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise JobFailed(f"{store.uri}/{key}: {member.filename} is encrypted or compressed in a way not read here")
        deflated = member.compress_type == zipfile.ZIP_DEFLATED
        start = member.header_offset
        yield name, Place(key, member.file_size, start, end - start, member.compress_size, member.CRC, deflated)


def read_labels(store: Store, seed: int) -> pd.DataFrame:
    """All labels there are, indexed by `image_id`.

    Columns: the 40 attributes as bool, `split` (`train`, `valid`, `test`; None where the partition file lacks the
    picture), and where the source has them `identity`, box and landmarks as int32. Without a partition file the split
    is drawn by `seed`, and by person where the identity is known, so that nobody is in two splits.

    Raises:
        JobFailed: no attribute file, or one that is not CelebA's.
    """
    labels = _read_table(store, "list_attr_celeba", list(ATTRIBUTES))
    if labels is None:
        raise JobFailed(
            f"{store.uri}: holds no list_attr_celeba.txt or .csv, as CelebA does, and no {' or '.join(LABEL_FILES)}, "
            "as other labelled pictures do; pictures of one style, without labels, are --style_folder"
        )
    strange = ~labels.isin([-1, 1])
    if strange.any(axis=None):
        where = strange.any(axis=1).idxmax()
        raise JobFailed(f"{store.uri}: list_attr_celeba: {where} has a value other than -1 and 1")
    labels = (labels == 1).astype(bool)
    for name, columns in {
        "identity_CelebA": ["identity"],
        "list_bbox_celeba": list(BOX),
        "list_landmarks_align_celeba": list(LANDMARKS),
    }.items():
        table = _read_table(store, name, columns)
        if table is not None:
            labels = labels.join(table)
    partition = _read_table(store, "list_eval_partition", ["partition"])
    if partition is None:
        persons = labels["identity"] if "identity" in labels else pd.Series(pd.NA, labels.index)
        labels["split"] = [
            drawn_split(image_id if person is pd.NA else person, seed) for image_id, person in persons.items()
        ]
    else:
        labels["split"] = partition["partition"].map(dict(enumerate(SPLITS))).reindex(labels.index)
    return labels


def _read_table(store: Store, name: str, columns: list[str]) -> pd.DataFrame | None:
    for folder in FOLDERS:
        for suffix in (".txt", ".csv"):
            key = f"{folder}{name}{suffix}"
            try:
                text = store.get(key)
            except NotFound:
                continue
            try:
                return _checked(_parse(text, columns, is_csv=suffix == ".csv"))
            except (ValueError, TypeError) as error:
                raise JobFailed(f"{store.uri}/{key}: not in CelebA's format: {error}") from None
    return None


def _parse(text: bytes, columns: list[str], is_csv: bool) -> pd.DataFrame:
    """CelebA's text files have a count and a header line (partition and identity: neither); Kaggle's CSV a header."""
    separator = "," if is_csv else r"\s+"
    lines = text.split(b"\n", 2)
    options: dict[str, Any] = {"sep": separator, "index_col": 0, "dtype": {0: str}, "header": None}
    if is_csv:
        return _named(pd.read_csv(io.BytesIO(text), **{**options, "header": 0}), columns)
    if len(lines[0].split()) == 1 and len(lines) == 3:
        header = lines[1].decode().split()
        table = pd.read_csv(io.BytesIO(lines[2]), **options)
        if len(table) != int(lines[0]):
            raise ValueError(f"announces {int(lines[0])} rows and has {len(table)}")
        names = [name for name in header if name != "image_id"]
        if table.shape[1] != len(names):
            raise ValueError(f"the header names {len(names)} columns and the rows have {table.shape[1]}")
        return _named(table.set_axis(names, axis=1), columns)
    table = pd.read_csv(io.BytesIO(text), **options)
    if table.shape[1] != len(columns):
        raise ValueError(f"rows have {table.shape[1]} values and should have {len(columns)}: {', '.join(columns)}")
    return table.set_axis(columns, axis=1)


def _named(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(f"lacks the columns {', '.join(missing[:5])}")
    return table[columns]


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    if table.index.hasnans:
        raise ValueError("a row has no image_id")
    if table.index.has_duplicates:
        raise ValueError(f"{table.index[table.index.duplicated()][0]} stands there twice")
    return table.astype("Int32")


def drawn_split(person: object, seed: int) -> str:
    """The split that whatever is kept together falls into: 80, 10 and 10 of a hundred, the same for the same seed."""
    number = int.from_bytes(hashlib.sha256(f"{seed}:{person}".encode()).digest()[:8], "big") / 2**64
    return next(split for split, share in SHARE_OF_SPLIT.items() if number < share)
