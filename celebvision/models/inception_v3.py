"""InceptionV3, with a head for binary attributes."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torchvision.models.inception import Inception3

from celebvision.models.preprocessing import Preprocessing

SMALLEST = 75  # below it, the last blocks have nothing left to convolve
SMALLEST_WITH_AUX = 299  # the auxiliary head needs Mixed_6e's 17x17, which no smaller input gives
HEADS = ("fc.", "AuxLogits.")


class InceptionV3(Inception3):  # type: ignore[misc]  # torchvision has no types; a wrapper would rename every layer
    """Inception-v3 (Szegedy et al. 2015, arXiv:1512.00567), torchvision's blocks and names.

    A prefix such as "fc", "Mixed_7" or "Mixed_6e" therefore selects the parameters to train.

    Departures: one binary logit per attribute instead of a softmax; inputs need not be 299x299, since the pooling
    before `fc` is global, which on small faces buys more epochs for the same time; and torchvision's
    ``transform_input`` is off. Its ImageNet weights expect pixels normalised by ImageNet's mean and deviation, which
    that option turns back into ``(x - 0.5) / 0.5`` at every forward; `preprocessing` gives the latter at once, so
    the convolutions see the same numbers.

    Args:
        outputs: number of binary attributes, one logit each.
        height, width: input size in pixels.
        aux: train the auxiliary head on Mixed_6e too; unused in evaluation.

    Raises:
        ValueError: an input too small, with what is needed.
    """

    def __init__(self, outputs: int = 1, height: int = 299, width: int = 299, aux: bool = True) -> None:
        if outputs < 1:
            raise ValueError(f"outputs must be positive, got {outputs}")
        if min(height, width) < SMALLEST:
            raise ValueError(f"InceptionV3 needs at least {SMALLEST}x{SMALLEST} pixels, got {height}x{width}")
        if aux and min(height, width) < SMALLEST_WITH_AUX:
            raise ValueError(
                f"the auxiliary head needs at least {SMALLEST_WITH_AUX}x{SMALLEST_WITH_AUX} pixels, "
                f"got {height}x{width}: set aux=False"
            )
        super().__init__(num_classes=outputs, aux_logits=aux, transform_input=False, init_weights=False)
        self.preprocessing = Preprocessing(height, width, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Give logits, B outputs, for normalised images, float, B 3 height width.

        Returns:
            (logits, auxiliary logits) in training with `aux`, else logits.
        """
        logits: Tensor
        aux_logits: Tensor | None
        logits, aux_logits = self._forward(images)
        return logits if aux_logits is None else (logits, aux_logits)

    def load_backbone(self, weights: Mapping[str, Tensor]) -> None:
        """Load pretrained weights by torchvision's key names; whatever float type they have becomes float32.

        The heads (`fc`, `AuxLogits`) are loaded where `weights` has them in this network's shapes and are left as
        initialised otherwise: an ImageNet checkpoint's have 1,000 classes. Missing batch counters are no error,
        they are unused.

        Raises:
            ValueError: a key of the backbone is missing or unknown, or has another shape; nothing is loaded then.
        """
        own = self.state_dict()
        given = {
            key: weight
            for key, weight in weights.items()
            if not key.startswith(HEADS) or (key in own and own[key].shape == weight.shape)
        }
        required = {key for key in own if not key.startswith(HEADS) and not key.endswith(".num_batches_tracked")}
        if missing := sorted(required - set(given)):
            raise ValueError(f"{_some(missing)} missing: expected torchvision's inception_v3 names")
        if unexpected := sorted(set(given) - set(own)):
            raise ValueError(f"{_some(unexpected)} unexpected: expected torchvision's inception_v3 names")
        if wrong := [
            f"{key} (expected {list(own[key].shape)}, got {list(weight.shape)})"
            for key, weight in given.items()
            if own[key].shape != weight.shape
        ]:
            raise ValueError(f"wrong shape: {_some(wrong)}")
        with torch.no_grad():
            self.load_state_dict(given, strict=False)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


ARCHITECTURE = InceptionV3
