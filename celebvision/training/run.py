"""`train`: shards in, a published model version out."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import ray
import safetensors.torch
import torch
from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model

from celebvision import images, registry
from celebvision.celeba.schema import ATTRIBUTES
from celebvision.celeba.shards import DataSet, ReadRowGroup, row_groups
from celebvision.config import TrainSettings
from celebvision.job import JobFailed, Outcome, code_version, digest
from celebvision.models import complete_arguments
from celebvision.models.classifier import Classifier
from celebvision.models.preprocessing import Preprocessing
from celebvision.ray_session import board, clear_errors
from celebvision.sheet import contact_sheet
from celebvision.storage import NotFound, arrow_filesystem, join, open_store
from celebvision.training.classification import Classification, network
from celebvision.training.loop import SCORE, WEIGHTS, Work, train_epochs

PUBLISHED = "published.json"
SAMPLES = 40  # pictures that a version shows
READ_CPUS = 0.25  # of a task that decodes, so that tasks fit beside the workers on a two-core machine
WORKERS_SHARE = 0.5  # of the CPUs reserved by workers where there is no GPU; threads are not bound by it


def train(settings: TrainSettings) -> Outcome:
    """Train, publish, and promote if it is the first version or `promote` says so.

    Raises:
        JobFailed: data, targets or arguments that do not fit, or more lost workers than allowed.
    """
    data = DataSet.load(settings.data)
    targets = _targets(settings.targets)
    for split in ("train", "valid"):
        if not data.rows(split):
            raise JobFailed(f"{settings.data}: the {split} split is empty")
    if data.rows("train") < settings.batch_size:
        raise JobFailed(f"batch_size: {settings.batch_size} is more than the {data.rows('train')} training images")
    preprocessing = cast(Preprocessing, network(settings.model_copy(update={"weights": None}), targets).preprocessing)
    run = join(settings.runs, _run_name(settings, data))
    try:
        published = json.loads(open_store(run).get(PUBLISHED))
    except NotFound:
        read = ReadRowGroup(settings.data, targets, preprocessing.height, preprocessing.width)
        weights, metrics = _fit(settings, data, read, run)
        model = registry.publish(
            settings.registry,
            settings.model_name,
            state=weights,
            architecture=settings.architecture,
            arguments=complete_arguments(settings.architecture, outputs=len(targets), **settings.arguments),
            preprocessing=preprocessing.to_json(),
            targets=list(targets),
            classes={target: _classes(target) for target in targets},
            metrics=metrics,
            data_digest=data.digest,
            code_version=code_version(),
            seed=settings.seed,
            card=_card(settings, data, targets, metrics),
            samples={"validation.png": _samples(settings, data, targets, weights)},
        )
        published = {"version": model.version, **metrics}
        open_store(run).put(PUBLISHED, json.dumps(published).encode())
    version = published.pop("version")
    if settings.promote or registry.production(settings.registry, settings.model_name) is None:
        registry.promote(settings.registry, settings.model_name, version)
    return Outcome(
        {"model": f"{settings.model_name}@{version}", "registry": settings.registry, "run": run, **published}
    )


def _targets(names: list[str]) -> tuple[str, ...]:
    if names == ["all"]:
        return ATTRIBUTES
    unknown = [name for name in names if name not in ATTRIBUTES]
    if unknown or len(set(names)) < len(names):
        raise JobFailed(
            f"targets: {', '.join(unknown or names)}: each should be one of {', '.join(ATTRIBUTES)}, or all"
        )
    return tuple(names)


def _classes(target: str) -> tuple[str, str]:
    return ("female", "male") if target == "Male" else (f"not_{target.lower()}", target.lower())


def _run_name(settings: TrainSettings, data: DataSet) -> str:
    """The same words on the same data continue the same run."""
    words = settings.model_dump(mode="json", exclude={"output", "summary_as_json", "max_worker_failures", "promote"})
    return f"{settings.model_name}-{digest({**words, 'data_digest': data.digest})}"


class _Split(DataConfig):
    """Training rows in equal parts, since every worker must take as many steps; validation rows to the last one."""

    def configure(self, datasets: dict[str, Any], world_size: int, *_: Any, **__: Any) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [{} for _ in range(world_size)]
        for name, dataset in datasets.items():
            splits = dataset.streaming_split(world_size, equal=name == "train")
            for part, split in zip(parts, splits, strict=True):
                part[name] = split
        return parts


def _fit(
    settings: TrainSettings, data: DataSet, read: ReadRowGroup, run: str
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Weights and figures of the best epoch."""
    filesystem, path = arrow_filesystem(settings.runs)
    with clear_errors(), board(f"train {settings.model_name}", None, "images") as told:
        trainer = TorchTrainer(
            _work,
            train_loop_config={"work": Work(settings, run, data.rows("train"), told), "targets": read.targets},
            datasets={split: _dataset(data, split, read, settings.seed) for split in ("train", "valid")},
            dataset_config=_Split(),
            scaling_config=_scaling(settings.workers),
            run_config=RunConfig(
                name=run.rpartition("/")[2],
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=settings.max_worker_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=SCORE),
            ),
        )
        result = trainer.fit()
    best, metrics = max(result.best_checkpoints or [], key=lambda pair: float(pair[1][SCORE]))
    with best.as_directory() as folder:
        weights = safetensors.torch.load_file(f"{folder}/{WEIGHTS}")
    names = ("epoch", "loss", "valid_loss", "valid_accuracy")
    return weights, {name: float(metrics[name]) for name in names}


def _dataset(data: DataSet, split: str, read: ReadRowGroup, seed: int) -> ray.data.Dataset:
    groups = [{"path": group.path, "number": group.number} for group in row_groups(data, split)]
    dataset = ray.data.from_items(groups, override_num_blocks=len(groups))
    if split == "train":
        dataset = dataset.randomize_block_order(seed=ray.data.RandomSeedConfig(seed=seed))
    return dataset.map_batches(read, batch_size=1, num_cpus=READ_CPUS)


def _scaling(workers: int) -> ScalingConfig:
    resources = ray.cluster_resources()
    if resources.get("GPU", 0) > 0:
        return ScalingConfig(num_workers=workers, use_gpu=True)
    cpus = min(1.0, WORKERS_SHARE * resources.get("CPU", 1.0) / workers)
    return ScalingConfig(num_workers=workers, resources_per_worker={"CPU": cpus})


def _work(config: dict[str, Any]) -> None:
    work: Work = config["work"]
    context = ray.train.get_context()
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, int(ray.cluster_resources().get("CPU", 1)) // context.get_local_world_size()))
    task = Classification(work.settings, config["targets"], device, partial(prepare_model, move_to_device=False))
    train_epochs(task, work, device)


def _samples(
    settings: TrainSettings, data: DataSet, targets: tuple[str, ...], weights: dict[str, torch.Tensor]
) -> bytes:
    """A PNG of some validation pictures with the first target's label, and `wrong` where it is."""
    made = network(settings.model_copy(update={"weights": None}), targets)
    made.load_state_dict(weights)
    classifier, target = Classifier(made, targets), targets[0]
    group = row_groups(data, "valid")[0]
    with open_store(settings.data).open(group.path) as stream:
        rows = pq.ParquetFile(stream).read_row_group(group.number, ["image", target]).slice(0, SAMPLES).to_pylist()
    size = classifier.preprocessing
    pixels = torch.from_numpy(np.stack([images.decode(row["image"], size.height, size.width) for row in rows]))
    tiles = []
    for row, answer in zip(rows, classifier.probabilities(pixels)[:, 0].tolist(), strict=True):
        wrong = "" if (answer > 0.5) == row[target] else ", wrong"
        tiles.append((row["image"], f"{_classes(target)[answer > 0.5]} {max(answer, 1 - answer):.2f}{wrong}"))
    return contact_sheet(tiles)


def _card(settings: TrainSettings, data: DataSet, targets: tuple[str, ...], metrics: dict[str, float]) -> str:
    figures = "\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.items())
    return f"""# {settings.model_name}

`{settings.architecture}` that answers {len(targets)} of CelebA's attributes: {", ".join(targets)}.

Trained on {data.rows("train")} pictures of `{data.source}` (digest `{data.digest[:12]}`), seed {settings.seed}; the
best epoch was chosen on {data.rows("valid")} validation pictures.

| figure | value |
| --- | --- |
{figures}

CelebA's labels are binary guesses of annotators, with errors among them; `Male` says how a face was seen, not who the
person is. The faces are of celebrities, aligned and cropped; on other pictures the figures above do not hold.
"""
