"""Weights of any file that a person may name: read if they are tensors, refused with reasons if not, never run."""

import argparse
import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights

from celebvision.job import JobFailed
from celebvision.pretrained import of_torchvision, pretrained, weights_of
from celebvision.storage import NotFound, open_store

WEIGHTS = {"features.0.weight": torch.arange(6.0).view(2, 3), "features.0.bias": torch.tensor([1, 2]).half()}


def saved(content: object, **how: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **how)
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("readme.txt", "no weights")
    return stream.getvalue()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor] = WEIGHTS) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


class Touches:
    """What writes a file when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


FILES = {
    "safetensors": safetensors.torch.save(WEIGHTS),
    "zip": saved(WEIGHTS),
    "legacy": saved(WEIGHTS, _use_new_zipfile_serialization=False),
    "ordered": saved(OrderedDict(WEIGHTS)),
    "wrapped": saved({"state_dict": WEIGHTS, "epoch": 3, "optimizer": {"state": {}}}),
    "wrapped legacy": saved({"state_dict": WEIGHTS, "epoch": 3}, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
@pytest.mark.parametrize("name", ["vgg.safetensors", "vgg.pth", "vgg"])
def test_the_content_tells_what_it_is_whatever_its_name(data: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert_same(pretrained(str(tmp_path / name)))


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_it_is_read_from_a_bucket(data: bytes, bucket: str) -> None:
    open_store(bucket).put("weights/vgg.bin", data)
    assert_same(pretrained(f"{bucket}/weights/vgg.bin"))
    open_store(bucket).put("vgg.bin", data)
    assert_same(weights_of(f"{bucket}/vgg.bin", "vgg16"))


def test_a_file_in_this_folder_needs_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vgg.pt").write_bytes(FILES["zip"])
    monkeypatch.chdir(tmp_path)
    assert_same(pretrained("vgg.pt"))


def test_parameters_become_tensors_that_do_not_learn(tmp_path: Path) -> None:
    (tmp_path / "linear.pt").write_bytes(saved({"weight": nn.Parameter(torch.ones(2))}))
    assert not pretrained(str(tmp_path / "linear.pt"))["weight"].requires_grad


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "in a state_dict"])
def test_a_checkpoint_with_code_is_refused_and_the_code_not_run(legacy: bool, wrapped: bool, tmp_path: Path) -> None:
    content: dict[str, object] = {**WEIGHTS, "trap": Touches(tmp_path / "ran")}
    data = saved({"state_dict": content} if wrapped else content, _use_new_zipfile_serialization=not legacy)
    uri = tmp_path / "vgg.pth"
    uri.write_bytes(data)
    with pytest.raises(
        JobFailed, match=rf"{uri} is a pickle with code, posix\.mkdir, which is not run; expected a saf"
    ):
        pretrained(str(uri))
    assert not (tmp_path / "ran").exists()
    torch.load(uri, weights_only=False)  # the trap is a trap
    assert (tmp_path / "ran").exists()


def test_a_plain_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "vgg.pkl").write_bytes(pickle.dumps(Touches(tmp_path / "ran"), protocol=protocol))
        with pytest.raises(JobFailed, match=r"vgg\.pkl (is a pickle that torch did not write|begins with)"):
            pretrained(str(tmp_path / "vgg.pkl"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><title>404</title></html>", "is an HTML page"),
        (b"<html lang=en>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "begins with b'version https://"),
        (random.Random(0).randbytes(4096), "begins with b'"),
        (FILES["safetensors"][:60], "is a damaged safetensors file, or none: .*"),
        (FILES["safetensors"][:-1], "is a damaged safetensors file, or none: .*"),
        (FILES["zip"][:-200], "is a damaged torch checkpoint, or another zip file .*"),
        (FILES["legacy"][:-30], "is a damaged torch checkpoint, or another zip file .*"),
        (FILES["legacy"][:40], "is a damaged torch checkpoint, or another zip file .*"),
        (
            saved(WEIGHTS, pickle_protocol=4),
            r"is a damaged torch checkpoint, or another zip file \(Unp.*: Unsupported op.*",
        ),
        (zipped(), "is a damaged torch checkpoint, or another zip file .*"),
        (saved([torch.zeros(1)]), "is a torch checkpoint of a list"),
        (saved(torch.zeros(1)), "is a torch checkpoint of a Tensor"),
        (saved({"state_dict": [1]}), "is a torch checkpoint of a list"),
        (saved({1: torch.zeros(1)}), "is a torch checkpoint that holds 1, a Tensor"),
        (
            saved({"model": WEIGHTS, "epoch": 3, "a": 1, "b": 2}),
            "is a torch checkpoint that holds 'model', a dict; 'epoch', a int; 'a', a int and 1 more",
        ),
        (saved({"args": argparse.Namespace(rate=1)}), r"is a pickle with code, argparse\.Namespace, which is not run"),
        (saved(nn.Linear(1, 1)), r"is a pickle with code, torch\.nn\.modules\.linear\.Linear, which is not run"),
    ],
)
def test_anything_else_is_refused_with_what_it_is_and_what_was_expected(data: bytes, told: str, tmp_path: Path) -> None:
    uri = tmp_path / "vgg.pth"
    uri.write_bytes(data)
    with pytest.raises(
        JobFailed, match=rf"^{uri} {told}.*; expected a safetensors file, or a torch checkpoint"
    ) as error:
        pretrained(str(uri))
    assert "weights_only" not in str(error.value)  # torch's own advice is to run the code


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "wrapped"])
def test_whatever_is_damaged_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    chance, uri = random.Random(kind), tmp_path / "vgg.pth"
    for _ in range(150):
        whole = bytearray(FILES[kind])
        data = whole[: chance.choice([len(whole), chance.randrange(1, len(whole))])]
        for _ in range(chance.choice([1, 5, 50])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        uri.write_bytes(data)
        with suppress(JobFailed):  # and nothing else; a number that changed is no damage that can be seen
            pretrained(str(uri))


def test_a_missing_file_is_named(bucket: str, tmp_path: Path) -> None:
    for uri in (f"{bucket}/vgg.pth", str(tmp_path / "vgg.pth")):
        with pytest.raises(NotFound, match=r"vgg\.pth"):
            pretrained(uri)


@pytest.mark.parametrize("uri", ["", "https://host/vgg.pth", "s3://bucket", "s3://bucket/folder/", "folder/"])
def test_what_names_no_file_is_refused(uri: str, s3_endpoint: str) -> None:
    with pytest.raises((JobFailed, NotFound), match=r"names no (file|object)|is no place|write s3://|no such"):
        pretrained(uri)


@pytest.fixture
def cached_vgg16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch would have put what it downloaded as VGG-16 before."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / VGG16_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    return path


def test_torchvisions_are_those_that_torch_has_downloaded_before(
    cached_vgg16: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cached_vgg16.write_bytes(FILES["legacy"])
    assert_same(weights_of("torchvision", "vgg16"))
    assert_same(of_torchvision("vgg16"))
    assert not capsys.readouterr().out


def test_torchvisions_are_not_run_either(cached_vgg16: Path, tmp_path: Path) -> None:
    cached_vgg16.write_bytes(saved({"trap": Touches(tmp_path / "ran")}))
    with pytest.raises(JobFailed, match="torchvision: the weights of vgg16"):
        weights_of("torchvision", "vgg16")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "inception_v3"])
@pytest.mark.parametrize(
    "error", [URLError("no route to host"), ConnectionResetError("reset"), RuntimeError('invalid hash value "00"')]
)
def test_a_failing_download_says_what_to_give_instead(
    name: str, error: Exception, cached_vgg16: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torch.hub.download_url_to_file", fails)
    with pytest.raises(
        JobFailed, match=rf"torchvision: the weights of {name} cannot be downloaded: .*give the URI of a"
    ):
        weights_of("torchvision", name)
    told = capsys.readouterr()
    assert "Downloading" in told.err
    assert not told.out  # where the job's summary goes


def test_each_name_is_the_network_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def downloaded(url: str, check_hash: bool, **_: object) -> dict[str, Tensor]:
        asked.append((url.rpartition("/")[2], check_hash))
        return WEIGHTS

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", downloaded)
    for name in ("vgg16", "vgg19", "inception_v3"):
        assert_same(of_torchvision(name))
    assert [(url.partition("-")[0], checked) for url, checked in asked] == [
        ("vgg16", True),
        ("vgg19", True),
        ("inception_v3_google", True),
    ]
