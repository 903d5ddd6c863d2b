"""`train`: shards in, published model versions out."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import ray
import safetensors.torch
import torch
from ray.train import CheckpointConfig, FailureConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from celebvision import capacity, registry
from celebvision.celeba.shards import DataSet
from celebvision.config import SPEECH, WATCHED, TrainSettings
from celebvision.job import JobFailed, Outcome, digest
from celebvision.metrics import Figures, telling
from celebvision.ray_session import board, clear_errors
from celebvision.storage import NotFound, arrow_filesystem, join, open_store
from celebvision.training.classifier_recipe import ClassifierRecipe
from celebvision.training.cyclegan_recipe import CycleGANRecipe
from celebvision.training.feed import Split, dataset
from celebvision.training.files import CONFIG, PUBLISHED
from celebvision.training.loop import SCORE, WEIGHTS, Work
from celebvision.training.recipe import Recipe
from celebvision.training.style_recipe import StyleRecipe
from celebvision.training.tell import Teller
from celebvision.training.worker import run_worker

RECIPES: dict[str, Callable[[TrainSettings, DataSet], Recipe]] = {  # of what is no classifier
    "cyclegan": CycleGANRecipe,
    "style_net": StyleRecipe,
    "adain": StyleRecipe,
}
WORKERS_SHARE = 0.5  # of the CPUs reserved by workers where there is no GPU; threads are not bound by it
NODE_SHARE = 0.75  # of a node's CPUs, by each of a changing number of workers: no second one finds room beside it
RESIZE_S = 60.0  # between looks whether there is room for more workers; growing costs the epoch that is begun
PLACE_S = 10  # for workers to find the room that was counted; then it is counted anew
POLL_S = 0.5  # between looks whether the workers are done; Ray Train's own two seconds are waited for at the end


def train(settings: TrainSettings) -> Outcome:
    """Train, publish, and promote if it is the first version or `promote` says so.

    Raises:
        JobFailed: data, targets or arguments that do not fit, or more lost workers than allowed.
    """
    return train_on(settings, DataSet.load(settings.data))


def train_on(settings: TrainSettings, data: DataSet) -> Outcome:
    """The same on shards that lie under `settings.data` and that no single `dataset.json` names. Raises as `train`."""
    if not data.rows("train"):
        raise JobFailed(f"{settings.data}: the train split is empty")
    rows = min(data.rows("train"), settings.epoch_images or data.rows("train"))
    if rows < settings.batch_size:
        raise JobFailed(f"batch_size: {settings.batch_size} is more than the {rows} training images of an epoch")
    recipe = _recipe(settings, data)
    run = join(settings.runs, _run_name(settings, recipe))
    try:
        published = json.loads(open_store(run).get(PUBLISHED))
    except NotFound:
        recipe.prepare()
        open_store(run).put(CONFIG, settings.model_dump_json(indent=1).encode())
        with telling(settings, Figures("train", settings.model_name, settings.registry), run) as told:
            weights, metrics = _fit(settings, data, rows, recipe, run, Teller(told))
        published = {"models": recipe.publish(weights, metrics), **metrics}
        open_store(run).put(PUBLISHED, json.dumps(published).encode())
    models = published.pop("models")
    for name, version in models.items():
        if settings.promote or registry.production(settings.registry, name) is None:
            registry.promote(settings.registry, name, version)
    made = [f"{name}@{version}" for name, version in models.items()]
    summary = {"model": made[0], **({"reverse": made[1]} if len(made) > 1 else {})}
    return Outcome({**summary, "registry": settings.registry, "run": run, **published})


def _recipe(settings: TrainSettings, data: DataSet) -> Recipe:
    return RECIPES.get(settings.architecture, ClassifierRecipe)(settings, data)


def _run_name(settings: TrainSettings, recipe: Recipe) -> str:
    """The same words on the same data continue the same run."""
    how = {"output", "max_worker_failures", "min_workers", "promote", *SPEECH, *WATCHED}
    words = settings.model_dump(mode="json", exclude=how)
    return f"{settings.model_name}-{digest({**words, 'data_digest': recipe.data_digest})}"


def _fit(
    settings: TrainSettings, data: DataSet, rows: int, recipe: Recipe, run: str, teller: Teller
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Weights and figures of the best epoch."""
    filesystem, path = arrow_filesystem(settings.runs)
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_S))
    if settings.min_workers is not None:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(PLACE_S))
    with clear_errors(), board(f"train {settings.model_name}", None, "images", teller) as told:
        trainer = TorchTrainer(
            run_worker,
            train_loop_config={"work": Work(settings, run, rows, told), "recipe": recipe},
            datasets={split: dataset(data, split, recipe.read, settings.seed) for split in ("train", "valid")},
            dataset_config=Split(),
            scaling_config=_scaling(settings.workers, settings.min_workers),
            run_config=RunConfig(
                name=run.rpartition("/")[2],
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=FailureConfig(max_failures=settings.max_worker_failures),
                checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=SCORE),
            ),
        )
        # At once without the nodes that drain; Ray Train would count their loss, or wait until they are gone.
        while not (result := _fitted(trainer)).return_value:
            pass
    best, metrics = max(result.best_checkpoints or [], key=lambda pair: float(pair[1][SCORE]))
    with best.as_directory() as folder:
        weights = safetensors.torch.load_file(f"{folder}/{WEIGHTS}")
    return weights, {name: float(metrics[name]) for name in recipe.figures}


def _fitted(trainer: TorchTrainer) -> Result:
    """Where Ctrl-C is pressed Ray Train ends its workers, and the process without a word; others must know why."""
    before = signal.getsignal(signal.SIGINT)
    try:
        return trainer.fit()
    except SystemExit as ended:
        raise KeyboardInterrupt from ended
    finally:
        signal.signal(signal.SIGINT, before)


def _scaling(workers: int, least: int | None) -> ScalingConfig:
    """As many workers, or where `least` is given as many of them as there is room for, one a node if on CPUs."""
    number = workers if least is None else (least, workers)
    resources = capacity.most()
    if resources.get("GPU", 0) > 0:
        return ScalingConfig(num_workers=number, use_gpu=True, elastic_resize_monitor_interval_s=RESIZE_S)
    if least is None:
        cpus = min(1.0, WORKERS_SHARE * resources.get("CPU", 1.0) / workers)
    else:
        nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
        cpus = NODE_SHARE * min(filter(None, nodes), default=1.0)
    cpu = {"CPU": cpus}
    return ScalingConfig(num_workers=number, resources_per_worker=cpu, elastic_resize_monitor_interval_s=RESIZE_S)
