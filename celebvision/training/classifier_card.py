"""The card of a classifier: what it is, what it was measured to be, and what it is not for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from celebvision import registry
from celebvision.celeba.shards import DataSet
from celebvision.config import TrainSettings
from celebvision.evaluation.groups import LEAST, Group
from celebvision.training.calibration import Calibration, table_of

WORST = 8  # groups of a target that are told
SHOWN_TARGETS = 5  # whose groups are told


def card(
    settings: TrainSettings,
    data: DataSet,
    targets: Sequence[str],
    metrics: Mapping[str, float],
    calibrations: Mapping[str, Calibration],
    groups: Mapping[str, Sequence[Group]],
    measured: int,
) -> str:
    """Markdown for a person who wonders whether to use this model.

    Args:
        groups: by target, the worst first.
        measured: validation pictures that temperatures and groups are of.
    """
    begun = f" It began with the weights of `{settings.initial}`." if settings.initial else ""
    told = "\n".join(_groups(target, groups[target]) for target in targets[:SHOWN_TARGETS])
    return f"""# {settings.model_name}

`{settings.architecture}` that answers {len(targets)} of CelebA's attributes: {", ".join(targets)}.

## Data

Trained on {data.rows("train")} pictures of `{data.source}` (digest `{data.digest[:12]}`), seed {settings.seed}; the
best epoch was chosen on {data.rows("valid")} validation pictures.{begun} What is true of the fewest training
pictures: {_rare(data, targets)}.

## Figures

{registry.table_of(metrics)}

They are of the pictures that the epoch was chosen by, and so a little better than others would give:
`celebvision evaluate` measures on the test split, with intervals.

Logits are divided by a temperature, fitted on {measured} of the validation pictures (Guo et al. 2017); the figures
before and after are of the same pictures.

{table_of(calibrations)}

## Labels

CelebA's labels are an annotator's yes or no to a picture. Some are wrong, the more so where the question has no clear
answer; some persons and pictures are there more than once. `Male` says how a face was seen, not who the person is or
what they would say.

## Not for

Decisions about a person; to find or to verify anybody; statements about a person's sex, gender, origin, age or health.
It learnt aligned, cropped faces of celebrities: on other pictures, or where a group is not among them, no figure above
holds.

## Whom it errs about

Error rates of {measured} validation pictures by what else is true of them, worst first, with 95 % intervals; groups of
less than {LEAST} are left out. An attribute that is marked may stand for something that was not asked.

{told}"""


def _groups(target: str, groups: Sequence[Group]) -> str:
    shown = [group for group in groups if not group.too_few][:WORST]
    if not shown:
        return f"`{target}`: no other attribute has a group of that size.\n"
    lines = [f"| `{target}` where | pictures | error rate | may stand for |", "| --- | --- | --- | --- |"]
    for group in shown:
        name = group.attribute if group.side else f"not {group.attribute}"
        rate = f"{group.error_rate:.1%} ({group.low:.1%} to {group.high:.1%})"
        lines.append(f"| {name} | {group.pictures} | {rate} | {group.proxy or ''} |")
    return "\n".join(lines) + "\n"


def _rare(data: DataSet, targets: Sequence[str]) -> str:
    positives, rows = data.positives("train"), data.rows("train")
    shares = sorted((positives[target] / rows, target) for target in targets)[:WORST]
    return ", ".join(f"{target} {share:.1%}" for share, target in shares)
