"""The Frechet distance within each class (intra-FID; Miyato and Koyama, 2018, arXiv:1802.05637).

A model that shows good images of other classes than it was asked for, or one image of each class again and again, may
have a good FID; here it has not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import EvaluationError
from zoo.metrics.frechet import Gaussian
from zoo.metrics.labels import called, checked, counts
from zoo.metrics.metric import Metric, matched

log = logging.getLogger("zoo")
LEAST = 2          # images of a class on each side, for a covariance
UNEQUAL = 2.0      # times as many images as the smallest class has, from which on the bias differs between classes


def intra_class_distance(
    real: Tensor, fake: Tensor, *, real_labels: Tensor, fake_labels: Tensor, classes: Sequence[str] = ()
) -> dict[str, float]:
    """Return {"intra_fid", "intra_fid_worst"} of real [N, d] and fake [M, d] features with classes [N] and [M]:
    the mean over classes, each counting alike, of the Frechet distance within a class, and the largest of them.

    It is biased as FID is, by how few images a class has: a warning names the smallest class if that has fewer than
    features, or if classes are very unequal.

    Args:
        classes: their names, for messages.

    Raises:
        EvaluationError: a class that the other side has has fewer than 2 images, or unusable labels or features.
    """
    real, fake = matched(real, fake, least=LEAST)
    real_labels, fake_labels = checked(real, real_labels, "real"), checked(fake, fake_labels, "fake")
    reals, fakes = counts(real_labels, fake_labels)
    _check(reals, fakes, real.shape[1], classes)
    found = []
    for each in (reals > 0).nonzero()[:, 0].tolist():
        shown, meant = Gaussian.of(fake[fake_labels == each]), Gaussian.of(real[real_labels == each])
        found.append(meant.distance(shown))
    distances = torch.tensor(found, dtype=torch.float64)
    return {"intra_fid": float(distances.mean()), "intra_fid_worst": float(distances.max())}


def _check(reals: Tensor, fakes: Tensor, dimensions: int, classes: Sequence[str]) -> None:
    present = (reals > 0) | (fakes > 0)
    fewest = torch.where(present, torch.minimum(reals, fakes), reals.max() + fakes.max())
    smallest = int(fewest.argmin())
    least, most = int(fewest[smallest]), int(torch.maximum(reals, fakes).max())
    given = f"{called(smallest, classes)} has {int(reals[smallest])} real and {int(fakes[smallest])} fake images"
    if least < LEAST:
        raise EvaluationError(
            f"{given}, but a distance within it takes {LEAST} of each: take more samples, leave the class out of the "
            "data, or take metric 'conditional_accuracy'."
        )
    if least < dimensions:
        log.warning(
            "%s, fewer than the %d features: intra_fid is badly biased; compare it only where every class has as many "
            "images, or take features of fewer dimensions.", given, dimensions,
        )  # fmt: skip
    elif most > UNEQUAL * least:
        log.warning(
            "%s, the largest class %d: intra_fid is biased most in small classes; compare it where all are as large.",
            given, most,
        )  # fmt: skip


INTRA_FID = Metric(
    intra_class_distance,
    inputs=("real", "fake", "real_labels", "fake_labels", "classes"),
    smooth=False,
    trusted=lambda dimensions: 2 * dimensions,
    advice="a distance within a class takes as many images of it as features, so take metric 'conditional_accuracy'",
)
