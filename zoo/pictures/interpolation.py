"""From one latent to another: whether a model has learned a space, or images by heart.

Spherical interpolation: Shoemake, 1985, "Animating rotation with quaternion curves", section 3.3, for latents White,
2016, arXiv:1609.04468. A straight line between two normal vectors leaves the shell where such vectors lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.metrics.path_length import on_line, on_sphere
from zoo.pictures.lettering import lettered
from zoo.pictures.samples import Labels, Progress, are_normal, chance, count, images_of, number

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.model import Model

TINY = 1e-30      # length of latents that are zero, as at psi = 0


def interpolation(
    model: Model,
    *,
    n: int = 4,
    steps: int = 8,
    seed: int = 0,
    psi: float = 1.0,
    loop: bool = False,
    labels: Labels = None,
    progress: Progress | None = None,
) -> Tensor:
    """Return images [n, steps, C, H, W] in [-1, 1] on the way from one latent to another, for each of n pairs.

    Latents that are normal are interpolated on the sphere, others on a line. What else is random in an image, such as
    StyleGAN's noise, is the same along a row, and so is its class.

    Args:
        n: pairs of latents. The first ones are those of ``model.sample(n, seed=seed)``.
        steps: images of a row.
        psi: truncation; 1 is none.
        loop: come back, so that the last image precedes the first: once around the circle through both latents, or of
            latents that are not normal there and back.
        labels: class indices [n] or rows [n, classes]; None: the classes in turn.
        progress: called with ("interpolated", images done, images in all).

    Raises:
        ConfigError: n is not 1 to 1000, or steps not 2 to 10,000; as `zoo.Model.sample`.
        WeightsError: the model makes values that are not finite.
    """
    n, steps = count("n", n), count("steps", steps, least=2, most=10_000)
    labels = model.each_class(n) if labels is None else labels
    noise, psi = chance(seed), number(psi)
    ends = model.latent(n, noise, psi), model.latent(n, noise, psi)
    way = around if loop else between
    frames = []
    for step, z in enumerate(way(*ends, steps, spherical=are_normal(model)), 1):
        frames.append(images_of(model, z, labels, seed=seed, psi=psi))
        if progress is not None:
            progress("interpolated", step * n, steps * n)
    return torch.stack(frames, 1)


def interpolation_strip(
    model: Model,
    *,
    n: int = 4,
    steps: int = 8,
    seed: int = 0,
    psi: float = 1.0,
    loop: bool = False,
    labels: Labels = None,
    progress: Progress | None = None,
) -> Image:
    """Return `interpolation` as a picture: a row for each pair, from left to right."""
    images = interpolation(
        model, n=n, steps=steps, seed=seed, psi=psi, loop=loop, labels=labels, progress=progress
    )
    return lettered(images.flatten(0, 1), steps)


def between(start: Tensor, end: Tensor, steps: int, *, spherical: bool) -> Tensor:
    """Return latents [steps, N, ...] from start [N, ...] to end, both included, at equal angles or distances."""
    way = on_sphere if spherical else on_line
    shares = torch.linspace(0, 1, steps, dtype=torch.float64)
    return torch.stack([way(start, end, share.expand(len(start))) for share in shares]).float()


def around(start: Tensor, over: Tensor, steps: int, *, spherical: bool) -> Tensor:
    """Return latents [steps, N, ...] from start [N, ...] by another one back to where the first one comes next."""
    turn = 2 * torch.pi * torch.arange(steps, dtype=torch.float64)[:, None, None] / steps
    first, second = start.double().flatten(1), over.double().flatten(1)
    if spherical:
        aside = second - (first * second).sum(1, keepdim=True) / _length(first).square() * first
        aside = aside / _length(aside) * _length(second)      # a quarter of the circle from the start
        way = turn.cos() * first + turn.sin() * aside
    else:
        way = torch.lerp(first, second, (1 - turn.cos()) / 2)
    return way.float().reshape(steps, *start.shape)


def _length(z: Tensor) -> Tensor:
    return z.square().sum(1, keepdim=True).sqrt().clamp_min(TINY)
