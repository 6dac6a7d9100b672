"""Frechet distance between two sets of features (FID; Heusel et al., 2017, arXiv:1706.08500)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from zoo.metrics.metric import Metric, matched

EIGENVALUE_ROUNDING = 10 * torch.finfo(torch.float64).eps      # of an eigenvalue, as a share of the largest
PRECISE = 1e-9                                                 # share of a sum of singular values that it may be off


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
        shared = nuclear_norm((self.factor.T @ other.factor).cpu())      # LAPACK's, on every machine
        return float(shift + (self.variance + other.variance) - 2 * shared)


def frechet_distance(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Return {"fid": |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))} of real [N, d] and fake [M, d] features.

    Means and covariances (divided by N - 1) are float64.

    Raises:
        EvaluationError: fewer than 2 images on a side, other shapes, or values that are not finite.
    """
    real, fake = matched(real, fake, least=2)
    return {"fid": Gaussian.of(real).distance(Gaussian.of(fake))}


def nuclear_norm(matrix: Tensor) -> Tensor:
    """Return the sum of the singular values of a float64 matrix [r, s], to 1e-9 of itself.

    They are the roots of the eigenvalues of the smaller product with the transpose, which take a third of the time. An
    eigenvalue is off by rounding of the largest one, which its root feels the more the smaller it is; where that is too
    much for the sum, the singular values are computed directly.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    roots = torch.linalg.eigvalsh(wide @ wide.T).clamp_min(0).sqrt()
    rounding = EIGENVALUE_ROUNDING * roots[-1].square()
    off = (rounding / torch.maximum(2 * roots, rounding.sqrt())).sum()
    total: Tensor = roots.sum() if off <= PRECISE * roots.sum() else torch.linalg.svdvals(matrix).sum()
    return total


def _factor(centred: Tensor) -> Tensor:
    """Return F [d, r] with F F^T = the covariance of centred [N, d] features; r is the smaller of N and d."""
    n, dimensions = centred.shape
    if n <= dimensions:
        return centred.T / math.sqrt(n - 1)
    return root(centred.T @ centred / (n - 1))


def root(covariance: Tensor) -> Tensor:
    """Return F [d, d] with F F^T = a covariance [d, d] in float64, which may be singular."""
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return lower
    values, vectors = torch.linalg.eigh(covariance)          # singular: constant or repeated features
    whole: Tensor = vectors * values.clamp_min(0).sqrt()
    return whole


FID = Metric(
    frechet_distance,
    trusted=lambda dimensions: dimensions,
    advice="FID of fewer images than features is badly biased, so take metrics 'kid' and 'precision_recall'",
)
