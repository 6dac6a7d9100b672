"""Filters as matrices: each axis of an image is multiplied by one, which holds the taps and the reflected border.

So that filtering is a matrix product: exact in float32 on every device, and differentiable as often as one likes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from zoo.training.augmentation.warp import reflect

# Orthonormal lowpass filters of the wavelets sym6 and sym2 (Daubechies, Ten Lectures on Wavelets, 1992, chapter 6):
# each is orthogonal to itself moved by an even number of places, and its taps sum to sqrt(2).
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
# Where a pixel lies among the samples that its filter spreads it on: the filter's centre of mass. sym6 is nearly
# symmetric about it, so images neither drift nor lose their axis when they are turned between two such filters.
DELAY = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6)


def samples(size: int) -> int:
    """Return how many samples `finer` makes of so many pixels: two each, and those that only the last ones reach."""
    return 2 * (size - 1) + len(SYM6)


@cache
def finer(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return U [samples, size]: pixel k adds tap j of sym6 to sample 2k + j, mirrored pixels beyond the border too.

    Its pixel k lies at sample 2k + `DELAY`. With `coarser`, it makes up the identity: D U = 1.
    """
    matrix = torch.zeros(samples(size), size, dtype=torch.float64)
    pixels = torch.arange(-len(SYM6), size + len(SYM6))
    columns = reflect(pixels, size)
    for j, tap in enumerate(SYM6):
        rows = 2 * pixels + j
        inside = (rows >= 0) & (rows < len(matrix))
        matrix.index_put_((rows[inside], columns[inside]), matrix.new_tensor(tap), accumulate=True)
    return matrix.to(device, dtype)


@cache
def coarser(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return D [size, samples]: pixel k is the sum of samples 2k + j times tap j of sym6."""
    matrix = torch.zeros(size, samples(size), dtype=torch.float64)
    for k in range(size):
        matrix[k, 2 * k : 2 * k + len(SYM6)] = matrix.new_tensor(SYM6)
    return matrix.to(device, dtype)


@cache
def bands(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return B [4, size, size]: what each octave of frequencies gives of an axis; together the identity.

    From [0, pi/8] to [pi/2, pi] (Karras 2020a, appendix B): with the halfband filter a(z) = H(z) H(1/z) / 2 of sym2 and
    its complement 1 - a(z), the split at pi/2 is at z, the one at pi/4 at z^2, the one at pi/8 at z^4.
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    lowest, parts = np.ones(1), []
    for octave in range(3):
        spread = np.zeros((len(low) - 1) * 2**octave + 1)
        spread[:: 2**octave] = low
        rest = -spread
        rest[len(rest) // 2] += 1
        parts.append(np.convolve(lowest, rest))
        lowest = np.convolve(lowest, spread)
    matrices = [_band(taps, size) for taps in (lowest, *reversed(parts))]
    return torch.stack(matrices).to(device, dtype)


def _band(taps: np.ndarray, size: int) -> Tensor:
    matrix, rows = torch.zeros(size, size, dtype=torch.float64), torch.arange(size)
    for j, tap in enumerate(taps.tolist()):
        columns = reflect(rows + j - len(taps) // 2, size)
        matrix.index_put_((rows, columns), matrix.new_tensor(tap), accumulate=True)
    return matrix
