"""Which parts of the real images a model leaves out: numbers of different bins (NDB).

Richardson and Weiss, 2018, arXiv:1805.12462: k-means cuts the real features into bins; a bin counts as different
where a two-proportion z-test finds that the fakes fill it otherwise than the reals.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import torch
from torch import Tensor

from zoo.metrics.metric import SEEDED, Metric, matched

BINS = 100
ALPHA = 0.05         # of the test: the share of bins that differ by chance between equal distributions
ROUNDS = 40          # of k-means
A_BIN = 10           # real images that a bin should have on average, below which there are fewer bins


@dataclass(frozen=True)
class Bins:
    """Real features cut into bins: every image belongs to the nearest centre."""

    centres: Tensor      # [K, d] float64
    shares: Tensor       # [K]: of the reals
    count: int           # of the reals

    @classmethod
    def of(cls, real: Tensor, k: int, *, seed: int = 0) -> Self:
        """Cut features [N, d], N >= 1, into at most k bins by k-means, begun far apart (k-means++)."""
        x = real.double()
        chance = torch.Generator().manual_seed(seed % 2**64)
        centres = _begun(x, min(k, len(x)), chance)
        for _ in range(ROUNDS):
            home = _nearest(x, centres)
            counts = torch.bincount(home, minlength=len(centres)).double()[:, None]
            moved = torch.zeros_like(centres).index_add_(0, home, x) / counts.clamp_min(1)
            moved = torch.where(counts > 0, moved, centres)
            if torch.equal(moved, centres):
                break
            centres = moved
        return cls(centres, _shares(x, centres), len(x))

    def filled(self, features: Tensor) -> Tensor:
        """Return [K] shares of features [M, d] in each bin."""
        return _shares(features.double(), self.centres)

    def homes(self, features: Tensor) -> Tensor:
        """Return the bin [M] that each of features [M, d] is in."""
        return _nearest(features.double(), self.centres)

    def different(self, shares: Tensor, count: int, *, alpha: float = ALPHA) -> Tensor:
        """Return [K] signs: -1 where `count` images with these shares are too few in a bin, 1 too many, 0 neither."""
        pooled = (self.count * self.shares + count * shares) / (self.count + count)
        error = (pooled * (1 - pooled) * (1 / self.count + 1 / count)).sqrt()
        z = (shares - self.shares) / error.clamp_min(1e-12)
        return torch.where(z.abs() > NormalDist().inv_cdf(1 - alpha / 2), z.sign(), 0.0)


def different_bins(real: Tensor, fake: Tensor, *, bins: int = BINS, seed: int = 0) -> dict[str, float]:
    """Return {"ndb", "ndb_missing", "js"} of real [N, d] and fake [M, d] features.

    ``ndb`` is the share of bins that differ: about 0.05 by chance alone. ``ndb_missing`` is the share of the reals in
    bins that hold too few fakes, ``js`` the Jensen-Shannon divergence of the two histograms in nats (0 to 0.69). There
    are fewer bins where reals would have less than 10 each.

    Raises:
        EvaluationError: fewer than 20 images on a side, other shapes, or values that are not finite.
    """
    real, fake = matched(real, fake, least=2 * A_BIN)
    cut = Bins.of(real, max(2, min(bins, len(real) // A_BIN)), seed=seed)
    shares = cut.filled(fake)
    signs = cut.different(shares, len(fake))
    return {
        "ndb": float((signs != 0).double().mean()),
        "ndb_missing": float(cut.shares[signs < 0].sum()),
        "js": jensen_shannon(cut.shares, shares),
    }


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """Return the Jensen-Shannon divergence of two distributions [K], in nats."""
    mixed = torch.special.entr((p + q) / 2).sum()
    return max(0.0, float(mixed - (torch.special.entr(p).sum() + torch.special.entr(q).sum()) / 2))


def _begun(x: Tensor, k: int, chance: torch.Generator) -> Tensor:
    """Return k rows of x, each drawn in proportion to its squared distance from those before (k-means++)."""
    chosen = [int(torch.randint(len(x), (), generator=chance))]
    squared = (x - x[chosen[0]]).square().sum(1).cpu()
    while len(chosen) < k and float(squared.max()) > 0:      # fewer where there are fewer distinct rows
        chosen.append(int(torch.multinomial(squared, 1, generator=chance)))
        squared = torch.minimum(squared, (x - x[chosen[-1]]).square().sum(1).cpu())
    return x[chosen]


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    distances = centres.square().sum(1) - 2 * x @ centres.T      # up to what is the same for all centres
    return distances.argmin(1)


def _shares(x: Tensor, centres: Tensor) -> Tensor:
    return torch.bincount(_nearest(x, centres), minlength=len(centres)).double() / len(x)


NDB = Metric(different_bins, inputs=SEEDED, smooth=False, least=lambda dimensions: 2 * A_BIN)
