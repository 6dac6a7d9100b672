"""ADA's changes of place: exact moves of pixels, and scaling, rotation and translation in between.

All say for each place of the result where it comes from: source = inverse (place - shift), in pixels from the centre
of the image, x right and y down, mirrored at its border. A chain of changes is the product of their matrices, so that
each function reads the image once.
"""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

from zoo.noise import Noise
from zoo.training.augmentation.filters import DELAY, coarser, finer, samples
from zoo.training.augmentation.warp import reflect, warp

REACH = 0.125          # of translations, as a share of the size
SCALE = 0.2            # deviation of scaling and stretching, in powers of two


def blit(images: Tensor, p: float, noise: Noise) -> Tensor:
    """Mirror left to right, then turn by quarters, then move by whole pixels: nothing is interpolated."""
    return moved(images, *drawn_moves(images, p, noise))


def drawn_moves(images: Tensor, p: float, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `moved` takes beside the images: each kind of move has probability p."""
    n = len(images)
    chosen = noise.uniform(n, 3) < p
    mirrored = chosen[:, 0] & (noise.integers(2, n) == 1)
    quarters = torch.where(chosen[:, 1], noise.integers(4, n), 0)
    shift = torch.where(chosen[:, 2:], ((2 * noise.uniform(n, 2) - 1) * _reach(images)).round(), 0.0)
    return mirrored, quarters, shift


def geometry(images: Tensor, p: float, noise: Noise) -> Tensor:
    """Scale, turn, stretch, turn again and move by fractions of a pixel."""
    chosen, inverse, shift = drawn_geometry(images, p, noise)
    return torch.where(chosen[:, None, None, None], resampled(images, inverse, shift), images)


def drawn_geometry(images: Tensor, p: float, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """Return which images change at all [N], and what `resampled` takes: each kind of change has probability p.

    Both turns together have probability p, so each has q with 1 - (1 - q)^2 = p.
    """
    n, q = len(images), 1 - sqrt(1 - p)
    chosen = noise.uniform(n, 5) < torch.tensor([p, q, p, q, p], device=images.device)
    scale, stretch = torch.where(chosen[:, 0:3:2], 2 ** (SCALE * noise.normal(n, 2)), 1.0).unbind(1)
    before, after = torch.where(chosen[:, 1:4:2], pi * (2 * noise.uniform(n, 2) - 1), 0.0).unbind(1)
    shift = torch.where(chosen[:, 4:], noise.normal(n, 2) * _reach(images), 0.0)
    inverse = _scaling(1 / scale, 1 / scale) @ turn(-before) @ _scaling(1 / stretch, stretch) @ turn(-after)
    return chosen.any(1), inverse, shift


def moved(images: Tensor, mirrored: Tensor, quarters: Tensor, shift: Tensor) -> Tensor:
    """Return the images mirrored where told [N], turned anticlockwise by quarters [N] and moved by pixels [N, 2]."""
    dtype, device = images.dtype, images.device
    height, width = images.shape[2:]
    flip = torch.where(mirrored, -1.0, 1.0)
    inverse = _scaling(flip, torch.ones_like(flip)) @ turn(-quarters * (pi / 2)).round()
    places = (torch.arange(size, device=device, dtype=dtype) - (size - 1) / 2 for size in (width, height))
    x, y = _sources(inverse.to(dtype), shift.to(dtype), *places)
    at = torch.stack([reflect(x + (width - 1) / 2, width), reflect(y + (height - 1) / 2, height)], dim=-1)
    return warp(images, at, nearest=True)


def resampled(images: Tensor, inverse: Tensor, shift: Tensor) -> Tensor:
    """Return images [N, C, H, W] changed by inverse [N, 2, 2] and shift [N, 2], between two filters.

    The image is spread on twice as many samples a side by the lowpass filter of an orthogonal wavelet, read there
    between samples, and gathered again by the same filter. So what the change magnifies stays smooth, and no change is
    the identity, as the filter is orthogonal to itself.
    """
    dtype, device = images.dtype, images.device
    height, width = images.shape[2:]
    fine = finer(height, dtype, device) @ images @ finer(width, dtype, device).mT
    places = (_places(size, dtype, device) for size in (width, height))
    x, y = _sources(inverse.to(dtype), shift.to(dtype), *places)
    seen = warp(fine, torch.stack([_sample(x, width), _sample(y, height)], dim=-1))
    return coarser(height, dtype, device) @ seen @ coarser(width, dtype, device).mT


def turn(angles: Tensor) -> Tensor:
    """Return matrices [N, 2, 2] that turn anticlockwise by angles [N]: y points down."""
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)


def _reach(images: Tensor) -> Tensor:
    return REACH * torch.tensor([images.shape[3], images.shape[2]], device=images.device)


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([x, y], dim=1))


def _sources(inverse: Tensor, shift: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return both coordinates [N, H, W] of where the places x [W], y [H] come from."""
    right, down = (x - shift[:, :1])[:, None, :], (y - shift[:, 1:])[:, :, None]
    (a, b), (c, d) = ((entry[:, None, None] for entry in row.unbind(1)) for row in inverse.unbind(1))
    return a * right + b * down, c * right + d * down


def _places(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return where the samples lie, in pixels from the centre of the image."""
    return (torch.arange(samples(size), dtype=dtype, device=device) - DELAY) / 2 - (size - 1) / 2


def _sample(place: Tensor, size: int) -> Tensor:
    """Return which sample lies at a place; what lies beyond the last one is reflected at the border of the image."""
    sample = 2 * (place + (size - 1) / 2) + DELAY
    outside = (sample < 0) | (sample > samples(size) - 1)
    return torch.where(outside, 2 * reflect((sample - DELAY) / 2, size) + DELAY, sample)
