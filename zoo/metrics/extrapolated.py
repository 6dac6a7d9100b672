"""Frechet distance without the bias of few fakes: extrapolated to infinitely many (Chong and Forsyth, 2020,
arXiv:1911.07023).

The distance at N fakes is about that at infinity plus a slope over N, and the slope depends on the model: at equal N a
worse model may show the lower value. A line through the values of subsets of several sizes, over 1 / N, is read at 0.
Sizes and their number are those of Stein et al., 2023, arXiv:2306.04675 (dgm-eval).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.metrics.frechet import Gaussian
from zoo.metrics.metric import SEEDED, Metric, matched

POINTS = 15           # subsets that the line goes through
SMALLEST = 5000       # fakes in the smallest, or a tenth of all where that is fewer
SHARE = 10            # all fakes over the smallest subset
FEWEST = 30           # images of a side: so the smallest subset has a covariance, and all sizes differ


@dataclass(frozen=True)
class Line:
    """The least-squares line through points, read at 0."""

    intercept: float
    std_error: float      # of the intercept, from the scatter of the points about the line

    @classmethod
    def through(cls, x: Tensor, y: Tensor) -> Line:
        """Return the line through points x [n], y [n], n >= 3, of which not all x are equal."""
        middle, spread = x.mean(), (x - x.mean()).square().sum()
        slope = ((x - middle) * (y - y.mean())).sum() / spread
        intercept = y.mean() - slope * middle
        variance = (y - intercept - slope * x).square().sum() / (len(x) - 2)
        return cls(float(intercept), float((variance * (1 / len(x) + middle.square() / spread)).sqrt()))


def extrapolated_frechet_distance(real: Tensor, fake: Tensor, *, seed: int = 0) -> dict[str, float]:
    """Return {"fid_infinity", "fid_infinity_std_error"} of real [N, d] and fake [M, d] features.

    ``fid_infinity`` is the Frechet distance of infinitely many fakes to these reals, of which as many should be taken
    as there are. ``fid_infinity_std_error`` is the standard error of the fit alone. The subsets share images, so the
    value moves more than that from one set of fakes to another. Of equal distributions it may be below 0.

    Raises:
        EvaluationError: fewer than 30 images on a side, other shapes, or values that are not finite.
    """
    real, fake = matched(real, fake, least=FEWEST)
    chance = torch.Generator().manual_seed(seed % 2**64)
    sizes = subset_sizes(len(fake))
    target = Gaussian.of(real)
    drawn = (fake[torch.randperm(len(fake), generator=chance)[:size].to(fake.device)] for size in sizes)
    distances = [target.distance(Gaussian.of(subset)) for subset in drawn]
    line = Line.through(1 / torch.tensor(sizes).double(), torch.tensor(distances).double())
    return {"fid_infinity": line.intercept, "fid_infinity_std_error": line.std_error}


def subset_sizes(n: int) -> list[int]:
    """Return how many of n fakes each subset holds: evenly spaced, from a tenth but at most 5,000 up to all."""
    return [int(size) for size in torch.linspace(min(SMALLEST, n // SHARE), n, POINTS, dtype=torch.float64)]


FID_INFINITY = Metric(
    extrapolated_frechet_distance,
    inputs=SEEDED,
    smooth=False,
    least=lambda dimensions: FEWEST,
    trusted=lambda dimensions: SHARE * dimensions,
    advice="the smallest subset, a tenth of the fakes, would have fewer images than features and be off the line, so "
    "take metrics 'kid' and 'precision_recall'",
)
