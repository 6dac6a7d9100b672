"""How many distinct images a set holds, in effect: the Vendi score (Friedman and Dieng, 2022, arXiv:2210.02410)."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.metrics.metric import Metric, matched

SMALLEST = 1e-12      # length of a feature vector below which it has no direction


def vendi(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Return {"vendi", "vendi_real"} of real [N, d] and fake [M, d] features: effective numbers of distinct images.

    A set that copies the real one has about `vendi_real`, one that shows the same image again and again 1. Features of
    real images often point in nearly the same direction; centre them first if it is their differences that count.

    Raises:
        EvaluationError: fewer than 2 images on a side, other shapes, or values that are not finite.
    """
    real, fake = matched(real, fake, least=2)
    return {"vendi": vendi_score(fake), "vendi_real": vendi_score(real)}


def vendi_score(features: Tensor) -> float:
    """Return the exponential of the entropy of the eigenvalues of K / n, for features [n, d], n >= 1.

    K holds the cosines between images (eq. 2 and 3). Its eigenvalues are those of the d x d matrix of the unit rows as
    well, of which the smaller one is decomposed. It lies between 1 (all alike) and n (all orthogonal). An image whose
    features are zero is like no other but those.
    """
    x = features.double()
    norms = x.norm(dim=1, keepdim=True)
    zero = norms <= SMALLEST
    # A direction of its own for images without one, so that the rows all have length 1.
    rows = torch.cat([torch.where(zero, 0.0, x / norms.clamp_min(SMALLEST)), zero.double()], 1)
    gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    shares = torch.linalg.eigvalsh(gram / len(rows)).clamp_min(0.0)
    return float(torch.special.entr(shares).sum().exp())


VENDI = Metric(vendi)
