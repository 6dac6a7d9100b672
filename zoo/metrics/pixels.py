"""Features without weights: where which colours lie, and how much detail of which size lies there.

For machines without a network or a weights package. The images are averaged down to 32x32; 192 numbers are the mean
colours of an 8x8 grid, 252 the mean absolute value of three bands of a Laplacian pyramid (Burt and Adelson, 1983) on
grids of 8x8, 4x4 and 2x2. Colours alone do not see blur, random convolutions hardly see a shifted layout; these see
both, but of what is depicted they know nothing. Never compare their values with those of learned features.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from zoo.errors import EvaluationError
from zoo.metrics.features import FeatureExtractor

VERSION = "pixels 1"          # part of every receipt: to be raised when the numbers change
SIZE = 32
GRID = 8                      # cells of the mean colours
BANDS = (8, 4, 2)             # cells of each band, finest detail first
DIMENSIONS = 3 * sum(cells**2 for cells in (GRID, *BANDS))


def pixel_features(images: Tensor) -> Tensor:
    """Return features [N, 444] of RGB uint8 images [N, 3, H, W]."""
    x = adaptive_avg_pool2d(images.float() / 127.5 - 1, SIZE)
    parts = [adaptive_avg_pool2d(x, GRID)]
    for cells in BANDS:
        coarse = avg_pool2d(x, 2)
        band = x - interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        parts.append(adaptive_avg_pool2d(band.abs(), cells))
        x = coarse
    return torch.cat([part.flatten(1) for part in parts], 1)


def extractor(argument: str = "", device: str | torch.device | None = None) -> FeatureExtractor:
    """Return the extractor of 444 numbers of colour and detail, which needs no weights.

    Raises:
        EvaluationError: an argument was given.
    """
    if argument:
        raise EvaluationError(f"features='pixels:{argument}' is not possible: 'pixels' takes no argument.")
    digest = hashlib.sha256(VERSION.encode()).hexdigest()
    return FeatureExtractor("pixels", digest, f"area-{SIZE}", DIMENSIONS, pixel_features, torch.device(device or "cpu"))
