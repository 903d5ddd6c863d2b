"""Drift of real faces, as a real Prometheus shows it when the jobs that found it are gone."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from labelling import fill, published, record
from monitoring import Monitoring
from PIL import Image, ImageEnhance

from celebvision.registry import promote

FACES = 60
WAIT_S = 30


def classify(photos: Path, labels: Path, models: Path, *words: str) -> str:
    """Run the command, which ends before this returns; what it told."""
    command = [str(Path(sys.executable).with_name("celebvision")), "classify", "--model", "cnn"]
    command += ["--input", str(photos), "--output", str(labels), "--registry", str(models), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_prometheus_shows_the_shift_of_a_job_that_is_gone(
    monitoring: Monitoring, test_data: Path, tmp_path: Path
) -> None:
    photos, labels, models = (tmp_path / name for name in ("photos", "labels", "models"))
    promote(str(models), "cnn", published(str(models), 1).version)
    faces = sorted((test_data / "data" / "celeba" / "img_align_celeba").iterdir())[: 2 * FACES]
    fill(str(photos), {f"day/{face.name}": face.read_bytes() for face in faces[:FACES]})
    words = ("--pushgateway", monitoring.pushgateway)
    classify(photos, labels, models, *words)
    assert not monitoring.series("celebvision_drift_psi"), "a first run has nothing to be compared with"

    for face in faces[FACES:]:
        night, held = ImageEnhance.Brightness(Image.open(face)).enhance(0.3), io.BytesIO()
        night.save(held, "jpeg", quality=95)
        fill(str(photos), {f"night/{face.name}": held.getvalue()})
    assert "pushgateway" not in classify(photos, labels, models, *words)
    kept = record(str(labels))["drift"]["psi"]
    assert kept["brightness"] > 1

    last = time.monotonic() + WAIT_S
    while not (found := monitoring.series("celebvision_drift_psi")) and time.monotonic() < last:
        time.sleep(0.2)
    shown = {one["metric"]["distribution"]: float(one["value"][1]) for one in found}
    assert shown == pytest.approx(kept)
    job = {(one["metric"]["job"], *(one["metric"][label] for label in ("verb", "model", "output"))) for one in found}
    assert job == {("celebvision", "classify", "cnn", str(labels))}


def test_a_gateway_that_is_gone_costs_a_job_nothing_but_a_line(tmp_path: Path, test_data: Path) -> None:
    photos, labels, models = (tmp_path / name for name in ("photos", "labels", "models"))
    promote(str(models), "cnn", published(str(models), 1).version)
    faces = sorted((test_data / "data" / "celeba" / "img_align_celeba").iterdir())[:2]
    for face in faces:
        fill(str(photos), {face.name: face.read_bytes()})
        told = classify(photos, labels, models, "--pushgateway", "http://127.0.0.1:9")
    assert "pushgateway: http://127.0.0.1:9 did not take the job's figures: " in told
    assert record(str(labels))["state"] == "done"
