"""CycleGAN as the paper writes it down and as anyone would type it first: float32, eager, one picture of each kind at
a time through each network. What our training step and our inference are measured against."""

from __future__ import annotations

import itertools
import random

import torch
from torch import Tensor, nn

BETAS = (0.5, 0.999)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            layers += [
                nn.ReflectionPad2d(1),
                nn.Conv2d(channels, channels, 3),
                nn.InstanceNorm2d(channels, affine=True),
            ]
            layers += [] if last else [nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = features + self.layers(features)
        return changed


def generator(width: int, blocks: int) -> nn.Module:
    def norm(channels: int) -> list[nn.Module]:
        return [nn.InstanceNorm2d(channels, affine=True), nn.ReLU()]

    return nn.Sequential(
        nn.ReflectionPad2d(3),
        nn.Conv2d(3, width, 7),
        *norm(width),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        *norm(2 * width),
        nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
        *norm(4 * width),
        *[Residual(4 * width) for _ in range(blocks)],
        nn.Upsample(scale_factor=2),
        nn.ReflectionPad2d(1),
        nn.Conv2d(4 * width, 2 * width, 3),
        *norm(2 * width),
        nn.Upsample(scale_factor=2),
        nn.ReflectionPad2d(1),
        nn.Conv2d(2 * width, width, 3),
        *norm(width),
        nn.ReflectionPad2d(3),
        nn.Conv2d(width, 3, 7),
        nn.Tanh(),
    )


def discriminator(width: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    for inputs, outputs, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        layers += [nn.Conv2d(inputs * width, outputs * width, 4, stride=stride, padding=1)]
        layers += [nn.InstanceNorm2d(outputs * width, affine=True), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, padding=1))


class Paper:
    """One training: `step` takes photos and styles, float32, B 3 H W, -1..1."""

    def __init__(
        self, width: int, blocks: int, discriminator_width: int, identity_weight: float, device: str = "cpu"
    ) -> None:
        self.to_style, self.to_photo = (generator(width, blocks).to(device) for _ in range(2))
        self.of_style, self.of_photo = (discriminator(discriminator_width).to(device) for _ in range(2))
        generators = itertools.chain(self.to_style.parameters(), self.to_photo.parameters())
        discriminators = itertools.chain(self.of_style.parameters(), self.of_photo.parameters())
        self.of_generators = torch.optim.Adam(generators, 2e-4, BETAS)
        self.of_discriminators = torch.optim.Adam(discriminators, 2e-4, BETAS)
        self.pools: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.identity_weight = identity_weight

    def step(self, photos: Tensor, styles: Tensor) -> None:
        for judge in (self.of_style, self.of_photo):
            judge.requires_grad_(False)
        self.of_generators.zero_grad()
        style, photo = self.to_style(photos), self.to_photo(styles)
        loss = (self.of_style(style) - 1).square().mean() + (self.of_photo(photo) - 1).square().mean()
        loss = loss + 10 * (self.to_photo(style) - photos).abs().mean()
        loss = loss + 10 * (self.to_style(photo) - styles).abs().mean()
        loss = loss + self.identity_weight * (self.to_style(styles) - styles).abs().mean()
        loss = loss + self.identity_weight * (self.to_photo(photos) - photos).abs().mean()
        loss.backward()
        self.of_generators.step()
        for judge in (self.of_style, self.of_photo):
            judge.requires_grad_(True)
        self.of_discriminators.zero_grad()
        for judge, real, made, pool in (
            (self.of_style, styles, style, self.pools[0]),
            (self.of_photo, photos, photo, self.pools[1]),
        ):
            shown = self._of_pool(pool, made.detach())
            (((judge(real) - 1).square().mean() + judge(shown).square().mean()) / 2).backward()
        self.of_discriminators.step()

    def _of_pool(self, pool: list[Tensor], images: Tensor) -> Tensor:
        shown = []
        for image in images:
            if len(pool) < 50:
                pool.append(image)
                shown.append(image)
            elif random.random() < 0.5:
                place = random.randrange(50)
                shown.append(pool[place])
                pool[place] = image
            else:
                shown.append(image)
        return torch.stack(shown)
