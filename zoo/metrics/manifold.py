"""Fidelity and variety apart: precision and recall, density and coverage, from nearest neighbours of features.

Improved precision and recall: Kynkaanniemi et al., 2019, arXiv:1904.06991.
Density and coverage: Naeem et al., 2020, arXiv:2002.09797.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.metrics.metric import Metric, matched

ROWS = 2048           # rows of a distance matrix in memory at once
PR_NEIGHBOURS = 3
DC_NEIGHBOURS = 5
SAME = 1e-12          # squared distances below this share of the squared norms are rounding: the features are equal


def precision_recall(real: Tensor, fake: Tensor, *, k: int = PR_NEIGHBOURS) -> dict[str, float]:
    """Return {"precision", "recall"} of real [N, d] and fake [M, d] features, both in [0, 1].

    A ball around each image reaches to its k-th nearest neighbour of the same side. Precision is the share of fakes
    inside a real ball (its surface included), recall the share of reals inside a fake one. Both depend on N and M:
    compare only values with equal counts.

    Raises:
        EvaluationError: fewer than k + 1 images on a side, other shapes, or values that are not finite.
    """
    real, fake = matched(real, fake, least=k + 1)
    real_radius, fake_radius = _radii(real, k), _radii(fake, k)
    recalled = []
    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    for rows, distance in distances(real, fake):
        recalled.append((distance <= fake_radius).any(1))
        precise |= (distance <= real_radius[rows, None]).any(0)
    return {"precision": float(precise.double().mean()), "recall": float(torch.cat(recalled).double().mean())}


def density_coverage(real: Tensor, fake: Tensor, *, k: int = DC_NEIGHBOURS) -> dict[str, float]:
    """Return {"density", "coverage"} of real [N, d] and fake [M, d] features.

    Density is the mean number of real balls around a fake, over k (it may exceed 1); coverage the share of real balls
    that hold a fake. Only the real side has balls, so outliers among the fakes do not help.

    Raises:
        EvaluationError: fewer than k + 1 images on a side, other shapes, or values that are not finite.
    """
    real, fake = matched(real, fake, least=k + 1)
    radius = _radii(real, k)
    inside, covered = 0, 0
    for rows, distance in distances(real, fake):
        balls = distance < radius[rows, None]
        inside += int(balls.sum())
        covered += int(balls.any(1).sum())
    return {"density": inside / (k * len(fake)), "coverage": covered / len(real)}


def _radii(x: Tensor, k: int) -> Tensor:
    """Return [N] squared distances from each row to its k-th nearest other row."""
    radii = []
    for rows, distance in distances(x, x):
        own = torch.arange(rows.start, rows.start + len(distance), device=x.device)
        distance[torch.arange(len(distance), device=x.device), own] = torch.inf
        radii.append(distance.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows of x, squared distances of those rows to all of y); exactly zero for equal features."""
    centre = x.mean(0)                       # |a|^2 + |b|^2 - 2ab loses digits in proportion to the norms
    y = y - centre
    y_norm = y.square().sum(1)
    for start in range(0, len(x), ROWS):
        part = x[start : start + ROWS] - centre
        norms = part.square().sum(1)[:, None] + y_norm
        squared = norms - 2 * part @ y.T
        yield slice(start, start + len(part)), torch.where(squared > SAME * norms, squared, 0.0)


PRECISION_RECALL = Metric(precision_recall, least=lambda dimensions: PR_NEIGHBOURS + 1)
DENSITY_COVERAGE = Metric(density_coverage, least=lambda dimensions: DC_NEIGHBOURS + 1)
