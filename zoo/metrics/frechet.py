"""Frechet distance between two sets of features (FID; Heusel et al., 2017, arXiv:1706.08500)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from zoo.metrics.metric import Metric, matched


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of one side's features, as the distance needs them: computed once, compared often."""

    mean: Tensor         # [d] float64
    variance: Tensor     # the trace of the covariance
    factor: Tensor       # [d, r]: F with F F^T = the covariance

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Return the Gaussian of float64 features [N, d], N >= 2; the covariance is divided by N - 1."""
        centred = features - features.mean(0)
        return cls(features.mean(0), centred.square().sum() / (len(centred) - 1), _factor(centred))

    def distance(self, other: Self) -> float:
        """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

        With S = F F^T, the eigenvalues of S1 S2 are the squared singular values of F1^T F2, so the trace of the root is
        the sum of those singular values. That needs no matrix square root, no complex numbers and no small term on the
        diagonal, and it holds for singular covariances too.
        """
        shift = (self.mean - other.mean).square().sum()
        shared = torch.linalg.svdvals((self.factor.T @ other.factor).cpu()).sum()      # LAPACK's, on every machine
        return float(shift + (self.variance + other.variance) - 2 * shared)


def frechet_distance(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Return {"fid": |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))} of real [N, d] and fake [M, d] features.

    Means and covariances (divided by N - 1) are float64.

    Raises:
        EvaluationError: fewer than 2 images on a side, other shapes, or values that are not finite.
    """
    real, fake = matched(real, fake, least=2)
    return {"fid": Gaussian.of(real).distance(Gaussian.of(fake))}


def _factor(centred: Tensor) -> Tensor:
    """Return F [d, r] with F F^T = the covariance of centred [N, d] features; r is the smaller of N and d."""
    n, dimensions = centred.shape
    if n <= dimensions:
        return centred.T / math.sqrt(n - 1)
    covariance = centred.T @ centred / (n - 1)
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return lower
    values, vectors = torch.linalg.eigh(covariance)          # singular: constant or repeated features
    root: Tensor = vectors * values.clamp_min(0).sqrt()
    return root


FID = Metric(
    frechet_distance,
    trusted=lambda dimensions: dimensions,
    advice="FID of fewer images than features is badly biased, so take metrics 'kid' and 'precision_recall'",
)
