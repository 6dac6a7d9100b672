"""DiffAugment: the same differentiable changes for reals and fakes, so a critic cannot learn few images by heart.

Zhao et al., 2020, arXiv:2006.10738. Written from the paper's description with its published strengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zoo.noise import Noise


def color(images: Tensor, noise: Noise) -> Tensor:
    """Shift brightness by +-0.5, scale saturation by 0 to 2 and contrast by 0.5 to 1.5 (images in [-1, 1])."""
    strengths = noise.uniform(len(images), 3, 1, 1, 1).to(images.dtype)
    paint, alpha = images[:, :3], images[:, 3:]
    paint = paint + (strengths[:, 0] - 0.5)
    mean = paint.mean(dim=1, keepdim=True)
    paint = mean + (paint - mean) * (2 * strengths[:, 1])
    mean = paint.mean(dim=(1, 2, 3), keepdim=True)
    paint = mean + (paint - mean) * (0.5 + strengths[:, 2])
    return torch.cat([paint, alpha], dim=1)


def translation(images: Tensor, noise: Noise, ratio: float = 0.125) -> Tensor:
    """Move each image by up to `ratio` of its size in both directions; what comes in at the border repeats the edge."""
    n, _, height, width = images.shape
    reach = max(1, round(ratio * height))
    rows = _shifted(height, noise.integers(2 * reach + 1, n) - reach)
    columns = _shifted(width, noise.integers(2 * reach + 1, n) - reach)
    at = torch.arange(n, device=images.device)[:, None, None]
    # Indexing [N, H, W, C] keeps channels together, which is how channels_last images lie in memory.
    return images.permute(0, 2, 3, 1)[at, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _shifted(size: int, shift: Tensor) -> Tensor:
    steps = torch.arange(size, device=shift.device)
    return (steps[None, :] + shift[:, None]).clamp(0, size - 1)


def cutout(images: Tensor, noise: Noise, ratio: float = 0.5) -> Tensor:
    """Set a square of `ratio` of the size, centred anywhere, to mid grey (0)."""
    n, _, height, width = images.shape
    centre = noise.uniform(n, 2) * torch.tensor([height, width], device=images.device)
    rows = (torch.arange(height, device=images.device)[None] - centre[:, :1]).abs() < ratio * height / 2
    columns = (torch.arange(width, device=images.device)[None] - centre[:, 1:]).abs() < ratio * width / 2
    return images * ~(rows[:, None, :, None] & columns[:, None, None, :])


PARTS: dict[str, Callable[[Tensor, Noise], Tensor]] = {"color": color, "translation": translation, "cutout": cutout}


def diffaugment(images: Tensor, parts: Sequence[str], noise: Noise, p: float = 1.0) -> Tensor:
    """Return images [N, C, H, W] after each of the named parts, in order: all of them, or each image with chance p."""
    if not p:
        return images
    changed = images
    for part in parts:
        changed = PARTS[part](changed, noise)
    return changed if p >= 1 else torch.where(noise.uniform(len(images), 1, 1, 1) < p, changed, images)
