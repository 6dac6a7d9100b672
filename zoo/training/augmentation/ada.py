"""ADA's changes (Karras et al., 2020a, arXiv:2006.06676, appendix B): each happens to an image with probability p.

While p is below one, a generator cannot pass a change off as part of the images: the changes do not leak. Written from
the paper. A change takes images [N, C, H, W] in [-1, 1] of float32 or float64, is differentiable twice, and draws one
row an image: the same however the batch is shared out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.noise import Noise
from zoo.training.augmentation.colour import colour
from zoo.training.augmentation.filters import bands
from zoo.training.augmentation.geometry import blit, geometry

Change = Callable[[Tensor, float, Noise], Tensor]

POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)      # of four octaves in natural images, whose spectrum falls as 1 / f
GRAIN = 0.1                                    # deviation of the noise's deviation
HOLE = 0.5                                     # side of the square that is cut out, as a share of the size


def filtering(images: Tensor, p: float, noise: Noise) -> Tensor:
    """Amplify each of four octaves of frequencies, at constant expected power; alpha stays as it is."""
    n, _, height, width = images.shape
    chosen = noise.uniform(n, len(POWER)) < p
    gains = band_gains(torch.where(chosen, 2 ** noise.normal(n, len(POWER)), 1.0)).to(images.dtype)
    paint, alpha = images[:, :3], images[:, 3:]
    rows, columns = (
        torch.einsum("nb,bij->nij", gains, bands(size, images.dtype, images.device))[:, None]
        for size in (height, width)
    )
    changed = torch.where(chosen.any(1)[:, None, None, None], rows @ paint @ columns.mT, paint)
    return torch.cat([changed, alpha], dim=1)


def band_gains(strengths: Tensor) -> Tensor:
    """Return what each band is multiplied by [N, 4], for the amplification of each band alone [N, 4].

    Amplifying one band lowers all four, such that an image of the usual spectrum keeps its power.
    """
    power = strengths.new_tensor(POWER)
    return strengths / (1 + power * (strengths.square() - 1)).sqrt().prod(1, keepdim=True)


def grain(images: Tensor, p: float, noise: Noise) -> Tensor:
    """Add Gaussian noise to each colour, its deviation half-normal; alpha stays as it is."""
    n, paint, alpha = len(images), images[:, :3], images[:, 3:]
    chosen = noise.uniform(n, 1, 1, 1) < p
    deviation = torch.where(chosen, GRAIN * noise.normal(n, 1, 1, 1).abs(), 0.0)
    return torch.cat([paint + (deviation * noise.normal(*paint.shape)).to(images.dtype), alpha], dim=1)


def hole(images: Tensor, p: float, noise: Noise) -> Tensor:
    """Set a square, centred anywhere, to mid grey (0)."""
    n, _, height, width = images.shape
    chosen = noise.uniform(n, 1) < p
    centre = noise.uniform(n, 2)
    rows = chosen & _within(height, centre[:, :1])
    columns = _within(width, centre[:, 1:])
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


def _within(size: int, centre: Tensor) -> Tensor:
    middles = (torch.arange(size, device=centre.device) + 0.5) / size
    return (middles - centre).abs() < HOLE / 2


# By the initials of their groups, as the paper writes them; most of its tests use "bgc".
SETS: dict[str, tuple[Change, ...]] = {
    "ada": (blit, geometry, colour),
    "ada:b": (blit,),
    "ada:bg": (blit, geometry),
    "ada:bgc": (blit, geometry, colour),
    "ada:bgcf": (blit, geometry, colour, filtering),
    "ada:bgcfn": (blit, geometry, colour, filtering, grain),
    "ada:bgcfnc": (blit, geometry, colour, filtering, grain, hole),
}


def ada(images: Tensor, changes: tuple[Change, ...], p: float, noise: Noise) -> Tensor:
    """Return images [N, C, H, W] of any floating-point type after each of the changes, in order."""
    if not p:
        return images
    with torch.autocast(images.device.type, enabled=False):      # colours and places need more than half precision
        changed = images.to(torch.promote_types(images.dtype, torch.float32))
        for change in changes:
            changed = change(changed, p, noise)
    return changed.to(images.dtype)
