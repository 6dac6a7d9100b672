"""How alike two images are, number by number and structure by structure: PSNR, SSIM and multi-scale SSIM.

All take two batches of images [N, C, H, W] in [-1, 1] and return one number for each pair, float64 [N]. Every channel
counts alike, transparency too: lay RGBA images over a background first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from zoo.errors import EvaluationError

PEAK = 2.0                    # the range of images in [-1, 1]
WINDOW, SIGMA = 11, 1.5       # of the Gaussian that local statistics are weighted by, in pixels
ROUNDING = 1e-5               # by which resized images may go beyond [-1, 1]
K1, K2 = 0.01, 0.03           # times the peak, squared: what keeps the quotients finite
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)      # exponents, from the finest scale on


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in decibels [N]: 10 log10(peak^2 / MSE); infinite for equal images.

    Raises:
        EvaluationError: no two equally large batches of images in [-1, 1].
    """
    a, b = _pair(a, b)
    return 10 * (PEAK**2 / (a - b).square().mean((1, 2, 3))).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the structural similarity [N], from -1 to 1; 1 is equal (Wang et al., 2004, eq. 13 and 17).

    Local means, variances and covariances are weighted by a Gaussian of 11x11 pixels, sigma 1.5, and only where it lies
    wholly inside the image; K1 = 0.01, K2 = 0.03, as in the paper. The images are not reduced first.

    Raises:
        EvaluationError: no two equally large batches of images in [-1, 1] of at least 11x11 pixels.
    """
    a, b = _pair(a, b, least=WINDOW)
    luminance, structure = _compared(a, b)
    return (luminance * structure).mean((1, 2, 3))


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the multi-scale structural similarity [N], from 0 to 1; 1 is equal (Wang et al., 2003, eq. 7).

    The product over scales j of (mean of contrast times structure)^beta_j, at the coarsest of luminance too; from scale
    to scale 2x2 pixels are averaged. Five scales with the paper's exponents take 176 pixels. Smaller images have as
    many as leave 11 pixels (see `scales`), and the exponents of those are divided by their sum: values at different
    resolutions are different measures. A mean that is negative counts as 0. Means are over places and channels.

    Raises:
        EvaluationError: no two equally large batches of images in [-1, 1] of at least 11x11 pixels.
    """
    a, b = _pair(a, b, least=WINDOW)
    exponents = SCALES[: scales(*a.shape[2:])]
    product = torch.ones(len(a), dtype=a.dtype, device=a.device)
    for j, exponent in enumerate(exponents):
        if j:
            a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
        luminance, structure = _compared(a, b)
        local = structure if j + 1 < len(exponents) else luminance * structure
        product = product * local.mean((1, 2, 3)).clamp_min(0) ** (exponent / sum(exponents))
    return product


def scales(height: int, width: int) -> int:
    """Return how many scales `ms_ssim` takes of images of this size, at most five; 0 if they are too small for one."""
    sides = (min(height, width) >> j for j in range(len(SCALES)))
    return sum(side >= WINDOW for side in sides)


def _compared(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return luminance and contrast times structure at each place of the valid region, both [N, C, h, w]."""
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    mean_a, mean_b, square_a, square_b, both = (_blurred(x) for x in (a, b, a * a, b * b, a * b))
    variances = (square_a - mean_a**2).clamp_min(0) + (square_b - mean_b**2).clamp_min(0)      # rounding can go below 0
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance, (2 * (both - mean_a * mean_b) + c2) / (variances + c2)


def _blurred(x: Tensor) -> Tensor:
    """Return the weighted means of all windows that lie inside [N, C, H, W]."""
    places = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = (-(places**2) / (2 * SIGMA**2)).exp()
    weights = weights / weights.sum()
    rows = conv2d(x.flatten(0, 1)[:, None], weights.view(1, 1, -1, 1))
    return conv2d(rows, weights.view(1, 1, 1, -1)).view(*x.shape[:2], rows.shape[2], -1)


def _pair(a: Tensor, b: Tensor, least: int = 1) -> tuple[Tensor, Tensor]:
    """Return both in float64."""
    if a.shape != b.shape or a.ndim != 4 or not (a.is_floating_point() and b.is_floating_point()):
        given = f"{list(a.shape)} ({a.dtype}) and {list(b.shape)} ({b.dtype})"
        raise EvaluationError(f"{given} cannot be compared: give two batches of images [N, C, H, W] in [-1, 1].")
    if min(a.shape[2:]) < least:
        height, width = a.shape[2:]
        raise EvaluationError(
            f"Images of {width}x{height} pixels have no structural similarity: its window takes {least}x{least}. "
            "Give larger ones, or take PSNR."
        )
    if not all(bool((each.abs() <= 1 + ROUNDING).all()) for each in (a, b)):
        raise EvaluationError("Images with numbers outside [-1, 1], or not finite, cannot be compared: clamp them.")
    return a.double(), b.double()
