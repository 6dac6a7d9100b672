"""From one latent to another: whether a model has learned a space, or images by heart.

Spherical interpolation: Shoemake, 1985, "Animating rotation with quaternion curves", section 3.3, for latents White,
2016, arXiv:1609.04468. A straight line between two normal vectors leaves the shell where such vectors lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.pictures.lettering import lettered
from zoo.pictures.samples import Labels, Progress, are_normal, chance, count, images_of, number

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.model import Model

PARALLEL = 1e-6      # radians from a common line: nothing to turn by
TINY = 1e-30


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
    share = _share(torch.linspace(0, 1, steps, dtype=torch.float64), start)
    angle = _angle(start, end) if spherical else start.new_zeros((len(start), *[1] * (start.ndim - 1)))
    turning = angle > PARALLEL
    sine = torch.where(turning, angle.sin(), 1.0)
    first = torch.where(turning, ((1 - share) * angle).sin() / sine, 1 - share)
    second = torch.where(turning, (share * angle).sin() / sine, share)
    return (first * start.double() + second * end.double()).float()


def around(start: Tensor, over: Tensor, steps: int, *, spherical: bool) -> Tensor:
    """Return latents [steps, N, ...] from start [N, ...] by another one back to where the first one comes next."""
    turn = _share(2 * torch.pi * torch.arange(steps, dtype=torch.float64) / steps, start)
    if not spherical:
        share = (1 - turn.cos()) / 2
        return ((1 - share) * start.double() + share * over.double()).float()
    first, second = start.double(), over.double()
    aside = second - _along(second, first) * first      # a quarter of the circle from the start
    aside = aside * (_length(second) / _length(aside).clamp_min(TINY))
    return (turn.cos() * first + turn.sin() * aside).float()


def _share(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * like.ndim)


def _length(z: Tensor) -> Tensor:
    """Return the length [N, 1, ...] of each of [N, ...]."""
    return _product(z, z).sqrt()


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return the scalar product [N, 1, ...] of each of [N, ...]."""
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))


def _along(z: Tensor, axis: Tensor) -> Tensor:
    """Return [N, 1, ...]: how many times the axis is in each of [N, ...]."""
    return _product(z, axis) / _length(axis).square().clamp_min(TINY)


def _angle(start: Tensor, end: Tensor) -> Tensor:
    """Return the angle [N, 1, ...] between both, or 0 where they are as good as opposite, or one of them is zero."""
    a, b = start.double(), end.double()
    lengths = _length(a) * _length(b)
    angle = (_product(a, b) / lengths.clamp_min(TINY)).clamp(-1, 1).acos()
    return torch.where((lengths > 0) & (angle < torch.pi - PARALLEL), angle, 0.0)
