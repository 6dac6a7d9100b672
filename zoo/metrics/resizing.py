"""Resizing, exactly as each feature extractor was used: a different filter gives other features and other numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def tf1_bilinear(images: Tensor, size: int) -> Tensor:
    """Return float images [N, C, size, size] resized as ``tf.image.resize_bilinear`` of TensorFlow 1 did.

    Output pixel i reads at i * in / out of the input: no half-pixel shift, no antialiasing, edges repeated.
    """
    for axis in (3, 2):
        place = torch.arange(size, device=images.device, dtype=images.dtype) * (images.shape[axis] / size)
        low = place.long()
        high = (low + 1).clamp_max(images.shape[axis] - 1)
        shape = [-1 if each == axis else 1 for each in range(4)]
        weight = (place - low).view(shape)
        before, after = images.index_select(axis, low), images.index_select(axis, high)
        images = before + (after - before) * weight
    return images


def antialiased(images: Tensor, size: int, mode: str) -> Tensor:
    """Return float images [N, C, size, size] in [0, 1], resized with antialiasing; `mode` is "bilinear" or "bicubic".

    Bicubic interpolation overshoots; the result is clamped, as picture libraries do.
    """
    if images.shape[2:] == (size, size):
        return images
    return interpolate(images, (size, size), mode=mode, antialias=True, align_corners=False).clamp(0, 1)
