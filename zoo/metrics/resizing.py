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


def clean_bicubic(images: Tensor, size: int) -> Tensor:
    """Return float images [N, C, size, size] in [0, 255] resized as clean-fid does (Parmar et al., 2022,
    arXiv:2104.11222): Pillow's bicubic filter with antialiasing on floats, cut to [0, 255], never rounded.
    """
    if images.shape[2:] == (size, size):
        return images
    # Pillow sums in float64. Accelerators without float64 differ by rounding.
    exact = images if images.device.type == "mps" else images.double()
    resized = interpolate(exact, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return resized.clamp(0, 255).to(images.dtype)


def antialiased(images: Tensor, size: int, mode: str) -> Tensor:
    """Return float images [N, C, size, size] in [0, 1], resized with antialiasing; `mode` is "bilinear" or "bicubic".

    Bicubic interpolation overshoots; the result is clamped, as picture libraries do.
    """
    if images.shape[2:] == (size, size):
        return images
    return interpolate(images, (size, size), mode=mode, antialias=True, align_corners=False).clamp(0, 1)
