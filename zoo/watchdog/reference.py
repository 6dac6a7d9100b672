"""What samples are compared with: a few hundred real images, as mean colours of a coarse grid.

Such features know nothing of what is depicted, but cost next to nothing, need no weights, and see what a watchdog has
to see: whether samples differ from each other, and whether they lie where real images lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from zoo.metrics.bins import Bins
from zoo.metrics.manifold import density_coverage, precision_recall
from zoo.metrics.vendi import vendi_score

GRID = 8              # cells of the grid, each way: 192 numbers of an RGB image
DIMENSIONS = 32       # directions of the largest variance that features are reduced to
COMPARED = 256        # reals that recall and coverage look at: about as many as samples
BINS = 20             # parts of the real images: a dozen samples in each
LEAST = 20            # reals, below which nothing is compared
COPY = 1 / 3          # a sample this close to a real, in distances to that one's nearest neighbour, is a copy
TINY = 1e-12


def pooled(images: Tensor) -> Tensor:
    """Return the mean colours [N, C * cells] of images [N, C, H, W] in [-1, 1], float64, on the host."""
    grid = min(GRID, *images.shape[2:])
    return adaptive_avg_pool2d(images.float(), grid).flatten(1).cpu().double()


@dataclass(frozen=True)
class Reference:
    """Real images, and what they would give if they were samples."""

    features: Tensor      # [N, d] of all
    nearest: Tensor       # [N] distance of each to its nearest other
    centre: Tensor        # [d]
    basis: Tensor         # [d, k]: directions of the largest variance
    reduced: Tensor       # [N, k]: the features in it
    bins: Bins
    spread: float         # mean distance between two
    apart: float          # median distance from one to the nearest other, among as many as samples
    vendi: float          # effective number of distinct ones among as many as samples
    deviation: float      # root of their total variance

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """Prepare features [N, d], N >= LEAST, of real images."""
        centre = features.mean(0)
        centred = features - centre
        _, vectors = torch.linalg.eigh(centred.T @ centred / len(features))      # in rising order
        basis = vectors[:, -DIMENSIONS:]
        reduced = centred @ basis
        return cls(
            features, _nearest(features), centre, basis, reduced,
            bins=Bins.of(reduced, max(2, min(BINS, len(reduced) // 5))),
            spread=_spread(reduced[:COMPARED]),
            apart=float(_nearest(features[:COMPARED]).median()),
            vendi=vendi_score(reduced[:COMPARED]),
            deviation=float(centred.square().sum(1).mean().sqrt()),
        )  # fmt: skip

    def middle(self, samples: Tensor) -> Tensor:
        """Return where the samples' mean lies [k], from the reals' mean, in standard deviations of the reals."""
        return (samples.mean(0) - self.centre) @ self.basis / max(self.deviation, TINY)

    def compare(self, samples: Tensor, *, whole: bool) -> dict[str, float]:
        """Return what features [M, d] of samples say, in proportion to the reals; M >= 20, all finite.

        ``spread``: mean distance between two; ``apart``: median distance to the nearest other; ``vendi``: effective
        number of distinct ones; ``recall``, ``coverage``; ``ndb``: share of bins filled otherwise; ``missing``: of the
        reals in bins with too few samples; ``offset``: of the samples' mean from the reals', in standard deviations of
        the reals; ``copies``: share of samples that nearly are one of the reals.

        Args:
            whole: whether the reference is all there is to copy.
        """
        reduced = (samples - self.centre) @ self.basis
        real = self.reduced[:COMPARED]
        shares = self.bins.filled(reduced)
        signs = self.bins.different(shares, len(reduced))
        found = {
            "spread": _spread(reduced) / max(self.spread, TINY),
            "apart": float(_nearest(samples).median()) / max(self.apart, TINY),
            "vendi": vendi_score(reduced) / self.vendi,
            "recall": precision_recall(real, reduced)["recall"],
            "coverage": density_coverage(real, reduced)["coverage"],
            "ndb": float((signs != 0).double().mean()),
            "missing": float(self.bins.shares[signs < 0].sum()),
            "offset": float((samples.mean(0) - self.centre).norm()) / max(self.deviation, TINY),
        }
        if whole:
            distance, real_one = torch.cdist(samples, self.features).min(1)
            found["copies"] = float((distance < COPY * self.nearest[real_one]).double().mean())
        return found


def _nearest(features: Tensor) -> Tensor:
    """Return the distance [N] of each row of [N, d], N >= 2, to the nearest other."""
    distances = torch.cdist(features, features)
    distances.fill_diagonal_(torch.inf)
    return distances.min(1).values


def _spread(features: Tensor) -> float:
    """Return the mean distance between two rows of [N, d], N >= 2."""
    return float(torch.pdist(features).mean())
