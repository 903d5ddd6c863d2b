"""Learning CelebA's attributes: one binary logit for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel

from celebvision.config import Phase, TrainSettings
from celebvision.job import JobFailed
from celebvision.models import create
from celebvision.models.augment import Augmentation, augment
from celebvision.models.classifier import has_bfloat16
from celebvision.models.preprocessing import Preprocessing
from celebvision.pretrained import weights_of
from celebvision.training.average import Average
from celebvision.training.loop import SCORE, Batch

AUXILIARY_WEIGHT = 0.3  # of the auxiliary head's loss (Szegedy et al. 2015)
GRADIENT_NORM = 5.0  # larger gradients are scaled down to it


class Classification:
    """The task: a network, its average over time, and per phase an AdamW over the parameters that learn."""

    def __init__(
        self,
        settings: TrainSettings,
        targets: tuple[str, ...],
        device: torch.device,
        parallel: Callable[[nn.Module], nn.Module],
        initial: dict[str, Tensor] | None = None,
    ) -> None:
        """`parallel` makes a network compute one gradient with those of the other workers; `initial`: its weights."""
        torch.manual_seed(settings.seed)
        self.settings, self.device, self.parallel = settings, device, parallel
        made = network(settings, targets)
        if initial is not None:
            made.load_state_dict(initial)
        self.network = made.to(device).to(memory_format=torch.channels_last)
        self.preprocessing = cast(Preprocessing, self.network.preprocessing)
        self.average = AveragedModel(self.network, multi_avg_fn=Average(settings.ema_decay), use_buffers=True)
        self.epochs = sum(phase.epochs for phase in settings.phases)
        self.augmentation = Augmentation(**settings.augment.model_dump())
        self.generator = torch.Generator()
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))
        self.phase: int | None = None
        self.wrapped: nn.Module | None = None
        self.optimizer_state: dict[str, Any] | None = None

    def start_epoch(self, epoch: int) -> None:
        number, first = _phase_of(self.settings.phases, epoch)
        self.share_done = (epoch - first) / self.settings.phases[number].epochs
        if number != self.phase:
            self._start_phase(number)
        self.generator.manual_seed(int(torch.randint(2**62, ()).item()))
        self.network.train()
        for module in self.network.modules():
            # Statistics of frozen layers stay as they are too.
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()

    def _start_phase(self, number: int) -> None:
        phase = self.settings.phases[number]
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad = not phase.trainable or name.startswith(tuple(phase.trainable))
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        if not learning:
            raise JobFailed(f"phases.{number}.trainable: no parameter's name begins with any of {phase.trainable}")
        self.wrapped = None  # the hooks of an earlier phase must be gone before the next ones are set
        self.wrapped = self.parallel(self.network)
        decayed = [parameter for parameter in learning if parameter.ndim > 1]
        others = [parameter for parameter in learning if parameter.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=phase.learning_rate, fused=True)
        if self.optimizer_state is not None:
            self.optimizer.load_state_dict(self.optimizer_state)
            self.optimizer_state = None
        self.phase, self.learning = number, learning

    def step(self, batch: Batch, share: float) -> dict[str, Tensor]:
        phase = self.settings.phases[self.phase or 0]
        rate = phase.learning_rate * self._schedule(self.share_done + share / phase.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images = augment(self._normalise(batch), self.generator, self.augmentation)
        labels = batch["label"] * (1 - self.settings.label_smoothing) + 0.5 * self.settings.label_smoothing
        assert self.wrapped is not None, "step before start_epoch"
        with self.autocast:
            logits = self.wrapped(images)
        logits, auxiliary = logits if isinstance(logits, tuple) else (logits, None)
        loss = binary_cross_entropy_with_logits(logits.float(), labels)
        total = loss
        if auxiliary is not None:
            total = loss + AUXILIARY_WEIGHT * binary_cross_entropy_with_logits(auxiliary.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.learning, GRADIENT_NORM)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return {"loss": loss.detach()}

    def _schedule(self, share: float) -> float:
        """The rate at `share` 0..1 of a phase, as a share of its peak."""
        warmup = self.settings.warmup if self.settings.schedule == "one_cycle" else 0.0
        if share < warmup:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * share / warmup))
        return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))

    @torch.inference_mode()
    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Loss and accuracy of the averaged weights, mean over targets, over all workers' rows."""
        self.average.eval()
        sums = torch.zeros(3, dtype=torch.float64)  # loss, right answers, answers
        for batch in batches:
            with self.autocast:
                logits = self.average(self._normalise(batch)).float()
            loss = binary_cross_entropy_with_logits(logits, batch["label"], reduction="sum")
            right = ((logits > 0) == (batch["label"] > 0.5)).sum()
            sums += torch.tensor([float(loss), float(right), logits.numel()], dtype=torch.float64)
        sums = sums.to(self.device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        loss_sum, right_sum, count = sums.tolist()
        accuracy = right_sum / max(count, 1)
        return {"valid_loss": loss_sum / max(count, 1), "valid_accuracy": accuracy, SCORE: accuracy}

    def _normalise(self, batch: Batch) -> Tensor:
        return self.preprocessing.normalise(batch["image"])

    def state(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        phase = state["phase"]
        self.optimizer_state = state["optimizer"]
        self._start_phase(phase)

    def weights(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().contiguous() for name, value in self.average.module.state_dict().items()}

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        return {}

    def warnings(self) -> list[str]:
        return []


def network(settings: TrainSettings, targets: tuple[str, ...]) -> nn.Module:
    """The network that the settings describe, with its pretrained weights where they name some.

    Raises:
        JobFailed: arguments the architecture does not take, or weights that do not fit it.
    """
    try:
        made = create(settings.architecture, outputs=len(targets), **settings.arguments)
    except (TypeError, ValueError) as error:
        raise JobFailed(f"arguments: {settings.arguments} are refused by {settings.architecture}: {error}") from None
    if settings.weights is None:
        return made
    load = getattr(made, "load_backbone", None)
    if load is None:
        raise JobFailed(f"weights: {settings.architecture} takes no pretrained weights")
    try:
        load(weights_of(settings.weights, settings.architecture))
    except ValueError as error:
        raise JobFailed(f"weights: {settings.weights} does not fit {settings.architecture}: {error}") from None
    return made


def _phase_of(phases: list[Phase], epoch: int) -> tuple[int, int]:
    """The phase that an epoch belongs to, and that phase's first epoch."""
    first = 0
    for number, phase in enumerate(phases):
        if epoch < first + phase.epochs:
            return number, first
        first += phase.epochs
    raise ValueError(f"epoch {epoch} is past the last phase")
