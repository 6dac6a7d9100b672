"""ADA's changes of colour: one affine map of (red, green, blue) for each image."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

from zoo.noise import Noise

LUMA = 1 / sqrt(3)      # each component of the unit vector along which colours are grey
BRIGHTNESS = 0.2        # deviation of what is added
CONTRAST = 0.5          # deviations of what is multiplied by, in powers of two
SATURATION = 1.0


def colour(images: Tensor, p: float, noise: Noise) -> Tensor:
    """Change brightness, contrast, flip luma, rotate hue and change saturation, each with probability p.

    Alpha stays as it is. Grey images change as grey colours do: hue and saturation leave them alone.
    """
    n = len(images)
    chosen = noise.uniform(n, 5) < p
    normal, uniform = noise.normal(n, 3), noise.uniform(n, 2)
    matrix, shift = colour_map(
        brightness=torch.where(chosen[:, 0], BRIGHTNESS * normal[:, 0], 0.0),
        contrast=torch.where(chosen[:, 1], 2 ** (CONTRAST * normal[:, 1]), 1.0),
        flipped=chosen[:, 2] & (uniform[:, 0] < 0.5),
        hue=torch.where(chosen[:, 3], pi * (2 * uniform[:, 1] - 1), 0.0),
        saturation=torch.where(chosen[:, 4], 2 ** (SATURATION * normal[:, 2]), 1.0),
    )
    return painted(images, matrix.to(images.dtype), shift.to(images.dtype))


def colour_map(
    *, brightness: Tensor, contrast: Tensor, flipped: Tensor, hue: Tensor, saturation: Tensor
) -> tuple[Tensor, Tensor]:
    """Return matrices [N, 3, 3] and shifts [N, 3] that make all five changes [N], in this order.

    With the projection P on the luma axis v, P = v v^T: a flip is the reflection 1 - 2 P, a hue turns about v by an
    angle (Rodrigues' formula), and saturation is P + s (1 - P).
    """
    one = torch.eye(3, device=hue.device, dtype=hue.dtype)
    luma = torch.full_like(one, LUMA**2)
    across = LUMA * hue.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])      # v x colour
    wide = (slice(None), None, None)
    turned = hue.cos()[wide] * (one - luma) + hue.sin()[wide] * across + luma
    saturated = luma + saturation[wide] * (one - luma)
    matrix = saturated @ turned @ (one - 2 * luma * flipped[wide]) * contrast[wide]
    return matrix, matrix.sum(2) * brightness[:, None]


def painted(images: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Return images [N, C, H, W] with colours mapped by matrix [N, 3, 3] and shift [N, 3]."""
    paint, alpha = images[:, :3], images[:, 3:]
    if paint.shape[1] == 1:      # of (grey, grey, grey) the map makes another grey, as luma is its own axis
        matrix, shift = matrix.sum(2, keepdim=True)[:, :1], shift[:, :1]
    changed = torch.einsum("nij,njhw->nihw", matrix, paint) + shift[:, :, None, None]
    return torch.cat([changed, alpha], dim=1)
