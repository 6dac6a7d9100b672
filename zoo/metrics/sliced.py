"""Sliced Wasserstein distance between two sets of features: the Monge inception distance (MIND; Berthet et al., 2026,
arXiv:2605.06797).

Along one direction the optimal transport is known: it keeps the order. So the features are projected onto random
directions and sorted. No covariance is estimated, which is why a few thousand images suffice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.metrics.metric import SEEDED, Metric, matched

DIRECTIONS = 1000
SCALE = 3             # times the dimensions: the paper's alpha = 3 d, by which values are about as large as FID's
AT_ONCE = 50          # directions whose projections are in memory at once


def monge_distance(real: Tensor, fake: Tensor, *, directions: int = DIRECTIONS, seed: int = 0) -> dict[str, float]:
    """Return {"mind": 3 d * mean over directions u of W2^2(u.real, u.fake)} of real [N, d] and fake [M, d] features.

    W2^2 is the squared Wasserstein-2 distance on a line, the integral over p in [0, 1] of the squared difference of the
    two p-quantiles; with N = M the mean squared difference of the sorted values. The directions, uniform on the unit
    sphere, are chosen by the seed. The value is never negative and shrinks as N and M grow: compare equal numbers.

    Raises:
        EvaluationError: fewer than 2 images on a side, other shapes, or values that are not finite.
    """
    real, fake = matched(real, fake, least=2)
    chance = torch.Generator().manual_seed(seed % 2**64)
    drawn = torch.randn(directions, real.shape[1], generator=chance, dtype=torch.float64)
    units = (drawn / drawn.norm(dim=1, keepdim=True)).to(real.device)
    total = torch.stack([transport(real @ part.T, fake @ part.T).sum() for part in units.split(AT_ONCE)]).sum()
    return {"mind": float(SCALE * real.shape[1] * total / directions)}


def transport(x: Tensor, y: Tensor) -> Tensor:
    """Return [K] squared Wasserstein-2 distances on a line between the columns of x [N, K] and y [M, K]."""
    x, y = x.sort(dim=0).values, y.sort(dim=0).values
    n, m = len(x), len(y)
    if n == m:
        return (x - y).square().mean(0)
    # The quantile functions are steps at i / N and j / M; in units of 1 / (N M) both kinds of steps are integers.
    steps = torch.cat([torch.arange(n, device=x.device) * m, torch.arange(m, device=x.device) * n]).sort().values
    widths = steps.diff(append=steps.new_tensor([n * m])).double() / (n * m)
    squared = (x[steps // m] - y[steps // n]).square()
    return (widths[:, None] * squared).sum(0)


MIND = Metric(monge_distance, inputs=SEEDED)
