"""Whether fakes are copies of training images: their distances to the nearest one, beside those of unseen images.

A model that learned the distribution makes images that are as near to the training images as unseen real ones are. The
share of near copies is read off that directly; C_T is the test of Meehan et al., 2020, arXiv:2004.05675; authenticity
is that of Alaa et al., 2022, arXiv:2102.08921. All see what the features see, so a copy that is shifted or recoloured
may be far away on one extractor and near on another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zoo.errors import EvaluationError
from zoo.metrics.bins import Bins
from zoo.metrics.manifold import distances
from zoo.metrics.metric import Metric, matched
from zoo.noise import key
from zoo.uncertainty import STD_ERROR

QUANTILE = 0.01      # of the unseen images' distances: fakes as near to a training image are near copies
LEAST_UNSEEN = 100   # held-out images without which that quantile is not known, so that other reals stand in for them
LEAST = 100          # images of each side
CELLS, A_CELL = 10, 20      # regions that C_T compares within; images of either kind that one must have to count


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each of some images."""

    distance: Tensor     # [M]
    place: Tensor        # [M]: which
    beyond: Tensor       # [M]: how far that one is from the nearest other training image

    def share(self, name: str) -> dict[str, float]:
        """Return the share of images that are farther from their nearest training image than that is from its nearest
        other, and its standard error. Images with the same nearest one are not independent of each other.
        """
        count = len(self.distance)
        authentic = (self.distance > self.beyond).double()
        excess = torch.zeros(int(self.place.max()) + 1, dtype=torch.float64, device=authentic.device)
        excess.index_add_(0, self.place, authentic - authentic.mean())
        error = max(float(excess.square().sum()) / count, float(authentic.var())) ** 0.5 / count**0.5
        return {name: float(authentic.mean()), name + STD_ERROR: error}


def memorisation(real: Tensor, fake: Tensor, *, held_out: Tensor | None = None, seed: int = 0) -> dict[str, float]:
    """Return how far fakes with features [M, d] are copies of training images, among real features [N, d].

    Values, beside what unseen images have: "near_copies", the share of fakes as near to a training image as the nearest
    1 % of unseen images are; "ct", the C_T score: around 0, and seldom beyond 2, if fakes are as near as unseen images,
    far below for copies, far above for images unlike any; "authenticity", the share of fakes farther from their nearest
    training image than that one is from its nearest other, and "authenticity_real", that of unseen images.

    Unseen images are those that were held out of the training, if at least 100 of them are among the reals. Otherwise
    each training image is compared with the others, as if it had not been among them. Doubles of a training image are
    not unseen, and left out.

    Args:
        held_out: bool [N], which of the reals the model was not trained on; None: none.
        seed: of the cells that C_T compares within.

    Raises:
        EvaluationError: fewer than 100 fakes or training images that are no doubles, or unusable features.
    """
    real, fake = matched(real, fake, least=LEAST)
    unseen = torch.zeros(len(real), dtype=torch.bool) if held_out is None else held_out.bool()
    training, kept = real[~unseen.to(real.device)], real[unseen.to(real.device)]
    if len(training) < LEAST:
        raise EvaluationError(f"Only {len(training)} of the real images were trained on: give {LEAST} of these.")
    among, second = _among(training)
    fakes = _nearest(fake, training, among.distance)
    kept, base = _fresh(kept, _nearest(kept, training, among.distance))
    known = len(kept)
    if known < LEAST_UNSEEN:
        # The nearest other image of image i, seen from there: its own nearest other but i.
        back = among.place[among.place] == torch.arange(len(training), device=real.device)
        beyond = torch.where(back, second[among.place], among.distance[among.place])
        kept, base = _fresh(training, replace(among, beyond=beyond))
        known = len(kept) // 2      # two images that are nearest to each other are as far, and tell one distance
    if len(kept) < LEAST:
        raise EvaluationError(f"All but {len(kept)} of the real images are doubles of others: give data without these.")
    copies, error = _copies(fakes.distance, base.distance, known)
    return {
        "near_copies": copies,
        f"near_copies{STD_ERROR}": error,
        "ct": _ct(training, fake, fakes.distance, kept, base.distance, seed),
        **fakes.share("authenticity"),
        **base.share("authenticity_real"),
    }


def _copies(near: Tensor, base: Tensor, known: int) -> tuple[float, float]:
    """Return the share of distances [M] below the quantile of [N] others, of which so many are independent, and its
    standard error: that of the share, and that of the quantile, as far as it moves the share.
    """
    spread = (QUANTILE * (1 - QUANTILE) / known) ** 0.5
    low, share, high = (
        float((near <= _quantile(base, level)).double().mean())
        for level in (QUANTILE - spread, QUANTILE, QUANTILE + spread)
    )
    likely = (share * len(near) + 1) / (len(near) + 2)      # of none among so many, it is not sure that there are none
    return share, (likely * (1 - likely) / len(near) + ((high - low) / 2) ** 2) ** 0.5


def _quantile(values: Tensor, level: float) -> Tensor:
    """Return what a further value of their distribution is below with this probability, for values [N]."""
    ordered = values.sort().values
    place = min(max(level * (len(values) + 1) - 1, 0.0), len(values) - 1.0)
    low = int(place)
    return ordered[low].lerp(ordered[min(low + 1, len(values) - 1)], place - low)


def _among(x: Tensor) -> tuple[Nearest, Tensor]:
    """Return the nearest other row of each row of x [N, d], and the distance [N] of the one after it."""
    first, places, second = [], [], []
    for rows, squared in distances(x, x):
        own = torch.arange(len(squared), device=x.device)
        squared[own, own + rows.start] = torch.inf
        found = squared.topk(2, dim=1, largest=False)
        first.append(found.values[:, 0].sqrt())
        second.append(found.values[:, 1].sqrt())
        places.append(found.indices[:, 0])
    near, place = torch.cat(first), torch.cat(places)
    return Nearest(near, place, near[place]), torch.cat(second)


def _nearest(x: Tensor, training: Tensor, own: Tensor) -> Nearest:
    """Return the nearest row of training [N, d] of each row of x [M, d], where `own` [N] is how far these are apart."""
    if not len(x):
        nothing = own[:0]
        return Nearest(nothing, nothing.long(), nothing)
    found = [squared.min(1) for _, squared in distances(x, training)]
    place = torch.cat([each.indices for each in found])
    return Nearest(torch.cat([each.values for each in found]).sqrt(), place, own[place])


def _fresh(x: Tensor, near: Nearest) -> tuple[Tensor, Nearest]:
    """Return both without the images that are doubles of a training image."""
    other = near.distance > 0
    return x[other], Nearest(near.distance[other], near.place[other], near.beyond[other])


def _ct(training: Tensor, fake: Tensor, near: Tensor, others: Tensor, base: Tensor, seed: int) -> float:
    """Return C_T (eq. 3 there): the z-scores of cells, weighted by how many unseen images are in each.

    Cells are those of k-means on the training images. In each, U counts the pairs of a fake and an unseen image in
    which the fake is farther from the training images, half where they are equally far.
    """
    cells = max(1, min(CELLS, min(len(fake), len(others)) // (5 * A_CELL)))
    cut = Bins.of(training, cells, seed=key("memorisation", seed))
    of_fake, of_others = cut.homes(fake), cut.homes(others)
    total, weight = 0.0, 0
    for cell in range(len(cut.centres)):
        ours, theirs = near[of_fake == cell], base[of_others == cell]
        if min(len(ours), len(theirs)) >= A_CELL:
            total, weight = total + len(theirs) * _z(ours, theirs), weight + len(theirs)
    return total / weight if weight else _z(near, base)


def _z(ours: Tensor, theirs: Tensor) -> float:
    """Return the z-score of the Mann-Whitney test whether values [m] exceed others [n]."""
    ordered = theirs.sort().values
    below = torch.searchsorted(ordered, ours) + torch.searchsorted(ordered, ours, right=True)
    m, n = len(ours), len(theirs)
    u = float(below.double().sum()) / 2
    return float((u - m * n / 2) / (m * n * (m + n + 1) / 12) ** 0.5)


MEMORISATION = Metric(
    memorisation, inputs=("real", "fake", "held_out", "seed"), smooth=False, least=lambda dimensions: LEAST
)
