"""Consistency: what should not change a critic's mind, and what should change a generator's images.

Parts of a turn, as in `zoo.regularisers`. Where a recipe augments too, its changes act on every image shown besides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.judged import Judged
from zoo.noise import Noise
from zoo.recipe import Terms

Change = Callable[[Tensor, Noise], Tensor]      # (images [N, C, H, W], chance) -> images as they might as well look
RADIUS = 0.05                                   # standard deviation of what is added to latents, StudioGAN's


def flip_and_shift(images: Tensor, noise: Noise, reach: float = 0.125) -> Tensor:
    """Mirror half of the images and move each by up to `reach` of its size (Zhang et al., 2020).

    What comes in at the border repeats the edge. The way back to the images is kept.
    """
    n, _, height, width = images.shape
    far = max(1, round(reach * height))
    down, right = (noise.integers(2 * far + 1, n, 1) - far for _ in range(2))
    rows = (torch.arange(height, device=images.device) + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + right).clamp(0, width - 1)
    columns = torch.where(noise.uniform(n, 1) < 0.5, columns, width - 1 - columns)
    at = torch.arange(n, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[at, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def disagreement(one: Tensor, other: Tensor) -> Tensor:
    """Return E[(one - other)^2] of two tensors of a shape, such as logits [N, K]: zero where they agree."""
    return (one - other).square().mean()


@dataclass(frozen=True)
class Consistency:
    """real E[(D(x) - D(T(x)))^2] + fake E[(D(G(z)) - D(T(G(z))))^2], for the discriminator.

    As it stands, balanced consistency (bCR; Zhao et al., 2021, arXiv:2002.04724, algorithm 1); with `fake=0`, the
    first one (CR; Zhang et al., 2020, arXiv:1910.12027).

    Args:
        real, fake: weights, 10 in both papers.
        change: T, another draw for each image.
    """

    real: float = 10.0
    fake: float = 10.0
    change: Change = flip_and_shift

    def __call__(self, judged: Judged) -> Terms:
        terms = {}
        if self.real:
            changed = self.change(judged.real, judged.batch.noise)
            terms["consistency"] = self.real * disagreement(judged.on_real, judged.judge(changed))
        if self.fake:
            changed = self.change(judged.fake.detach(), judged.batch.noise)
            terms["consistency_fake"] = self.fake * disagreement(judged.on_fake, judged.judge(changed))
        return Terms(terms)


@dataclass(frozen=True)
class LatentConsistency:
    """weight E[(D(G(z)) - D(G(z + dz)))^2], for the discriminator: half of zCR (Zhao et al., 2021, algorithm 2)."""

    weight: float = 20.0
    radius: float = RADIUS

    def __call__(self, judged: Judged) -> Terms:
        with torch.no_grad():
            one, other = neighbours(judged, self.radius)
        return Terms({"latent_consistency": self.weight * disagreement(judged.judge(one), judged.judge(other))})


@dataclass(frozen=True)
class LatentVariety:
    """-weight E[(G(z) - G(z + dz))^2], for the generator: the other half of zCR (Zhao et al., 2021, algorithm 2).

    The mean is over numbers of the images too, so that a weight means the same at every size. Neighbours differ by
    little: train with it in float32.
    """

    weight: float = 0.5
    radius: float = RADIUS

    def __call__(self, judged: Judged) -> Terms:
        return Terms({"latent_variety": -self.weight * disagreement(*neighbours(judged, self.radius))})


def neighbours(judged: Judged, radius: float) -> tuple[Tensor, Tensor]:
    """Return G(z) and G(z + dz), both [N, C, H, W], with dz normal of standard deviation `radius`."""
    model, batch = judged.model, judged.batch
    generator = model.get_submodule("generator")
    z = model.latent(len(batch), batch.noise)
    near = z + radius * batch.noise.normal(*z.shape)
    return generator(z, batch.labels).float(), generator(near, batch.labels).float()
