"""`make findings`: the CNN against InceptionV3, trained and evaluated anew, and what of the claims stands.

    python -m tests.benchmarks.findings SOURCE WORK [--docs docs/findings.md]

SOURCE holds CelebA's own files in `data/celeba` and InceptionV3's backbone in `weights`. What WORK has already is not
made again: shards, models and the evaluation each go on where they were cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

TARGET = "Male"
FIGURES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "brier", "calibration_error")
# What was reported before, by the authors of each: accuracy, and pictures it was measured on, where they say so.
CLAIMS = {
    "custom CNN of the original project": (0.937, "1,000 to 2,000 balanced pictures, drawn without a seed"),
    "InceptionV3 of the original project": (0.9315, "the same"),
    "best of the literature": (0.989, "CelebA's test split, 19,962 pictures"),
}
WORST = 6  # groups that are told


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m tests.benchmarks.findings", description=__doc__)
    words.add_argument("source", type=Path)
    words.add_argument("work", type=Path)
    words.add_argument("--docs", type=Path, default=Path("docs/findings.md"))
    given = words.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    celebvision = str(Path(sys.executable).with_name("celebvision"))
    for command in commands(given.source, given.work):
        print("$ celebvision", *command, flush=True)
        subprocess.run([celebvision, *command], check=True)
    given.docs.write_text(page(json.loads((given.work / "evaluation/evaluation.json").read_text())))


def commands(source: Path, work: Path) -> list[list[str]]:
    """The words of each verb, in order."""
    shards, registry = str(work / "shards"), str(work / "models")
    to = ["--workers", "2", "--data", shards, "--registry", registry]
    backbone = str(source / "weights/inception_v3_backbone.safetensors")
    return [
        ["ingest", "--source", str(source / "data/celeba"), "--output", shards],
        ["train", "--config", "configs/train/cnn.yaml", *to],
        ["train", "--config", "configs/train/inception_v3_small.yaml", "--weights", backbone, *to],
        ["evaluate", "--model", "cnn,inception_v3", *to[2:], "--output", str(work / "evaluation")],
    ]


def page(evaluation: Mapping[str, Any]) -> str:
    """Markdown of what `evaluate` wrote of both models."""
    models = {title.partition("@")[0]: title for title in evaluation["models"]}
    found = {name: evaluation["models"][title][TARGET] for name, title in models.items()}
    rows = [
        f"| {figure.replace('_', ' ')} | {' | '.join(_of(found[name][figure]) for name in found)} |"
        for figure in FIGURES
    ]
    lines = [
        "# Findings: the CNN against InceptionV3",
        "",
        f"Both answer CelebA's `{TARGET}`, after training on the same faces, on {evaluation['pictures']:,} pictures "
        f"of the {evaluation['split']} split. In brackets stand 95 % intervals (bootstrap over pictures).",
        "",
        f"| figure | {' | '.join(found)} |",
        "| --- |" + " --- |" * len(found),
        *rows,
        "",
        *(f"{one['sentence']}." for one in evaluation["comparisons"]),
        "",
        "## What was claimed, and what is shown",
        "",
        "| claim | accuracy | measured on | chance alone moves it by |",
        "| --- | --- | --- | --- |",
        *(_claim(name, *claim) for name, claim in CLAIMS.items()),
        "",
        *_told(found, evaluation),
        "",
        "The claims are of other pictures, and of networks that learnt from others: they say where we stand, not who "
        "is better.",
        "",
        "## Whom they err about",
        "",
        *(line for name, title in models.items() for line in _groups(name, evaluation["groups"][title][TARGET])),
        "`Male` is an annotator's binary guess at a picture, not what anybody said of themself; some labels are wrong, "
        "and some faces are there twice. A group's attribute is such a guess too.",
        "",
        "## Again",
        "",
        "    CELEBVISION_TEST_DATA=FOLDER make findings",
        "",
        f"Measured on {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"torch {version('torch')}, Ray {version('ray')}; code {evaluation['code_version']}, data "
        f"`{evaluation['data_digest'][:12]}`, models {', '.join(f'`{title}`' for title in models.values())}.",
        "",
    ]
    return "\n".join(lines)


def _of(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return str(figure["why"])
    return f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"


def _claim(name: str, accuracy: float, measured_on: str) -> str:
    pictures = 19_962 if "19,962" in measured_on else 1_000
    half = 1.96 * (accuracy * (1 - accuracy) / pictures) ** 0.5
    return f"| {name} | {accuracy:.2%} | {measured_on} | ±{100 * half:.1f} points |"


def _told(found: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[str]:
    """What follows for each claim, from the intervals."""
    lines = []
    for name, figures in found.items():
        accuracy = figures["accuracy"]
        for claim, (value, _) in CLAIMS.items():
            if "original" in claim and name.partition("_")[0] not in claim.lower():
                continue
            stands = (
                "above"
                if accuracy["low"] > value
                else "below"
                if accuracy["high"] < value
                else "not shown to differ from"
            )
            lines.append(f"- `{name}` at {accuracy['value']:.1%} is {stands} the {value:.2%} of the {claim}.")
    shown = [one for one in evaluation["comparisons"] if one["shown"]]
    gap = 100 * (CLAIMS["custom CNN of the original project"][0] - CLAIMS["InceptionV3 of the original project"][0])
    between = "is shown here" if shown else "is not shown here either"
    lines.append(
        f"- The {gap:.2f} points between the original's two networks are less than chance moves either; a difference "
        f"between the two {between}."
    )
    return lines


def _groups(name: str, groups: list[Mapping[str, Any]]) -> list[str]:
    told = [group for group in groups if not group["too_few"]][:WORST]
    lines = [f"`{name}`, worst first:", "", "| group | pictures | error rate |", "| --- | --- | --- |"]
    for group in told:
        attribute = group["attribute"] if group["side"] else f"not {group['attribute']}"
        proxy = f" (a proxy of {group['proxy']})" if group["proxy"] else ""
        rate = f"{group['error_rate']:.1%} ({group['low']:.1%} to {group['high']:.1%})"
        lines.append(f"| {attribute}{proxy} | {group['pictures']} | {rate} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
