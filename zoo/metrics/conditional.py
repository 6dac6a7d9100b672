"""How often a fake shows the class that it was asked to show.

A classifier that learned from real images looks at the fakes: GAN-test (Shmelkov et al., 2018, arXiv:1807.09499). It is
a linear one on the features, fitted by ridge regression in float64: the same features give the same classifier on every
machine, its solution is exact, and it has nothing to tune; features of pretrained networks are made for linear ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import EvaluationError
from zoo.metrics.labels import called, checked, counts
from zoo.metrics.metric import Metric, matched
from zoo.noise import key
from zoo.uncertainty import STD_ERROR

FOLDS = 5          # of the reals: each is looked at by the classifier that did not learn from its fold
LEAST = 2          # real images of a class: one to learn from, one to look at
RIDGE = 0.3        # times the mean eigenvalue of the features' covariance


def conditional_accuracy(
    real: Tensor,
    fake: Tensor,
    *,
    real_labels: Tensor,
    fake_labels: Tensor,
    seed: int = 0,
    classes: Sequence[str] = (),
) -> dict[str, float]:
    """Return {"conditional_accuracy", "conditional_accuracy_real"} of real [N, d] and fake [M, d] features with
    classes [N] and [M]: the share of fakes in which the classifier sees the class asked for, and that of real images
    that it did not learn from, which is what a perfect model reaches.

    Both are means over the classes that fakes were asked for, each counting alike, also where they are unequal. The
    reals are cut into five folds by `seed`; five classifiers learn from four each. A model that leaves variety out of
    its classes may exceed the reals: this sees what images show, not how many kinds there are. NAME_std_error of both
    covers the choice of the images looked at; that of the fakes' also which reals the classifier learned from, as the
    folds tell it (jackknife).

    Args:
        classes: their names, for messages.

    Raises:
        EvaluationError: fewer than two classes, a class of which the reals have fewer than 2, unusable labels or
            features.
    """
    real, fake = matched(real, fake, least=LEAST)
    real_labels, fake_labels = checked(real, real_labels, "real"), checked(fake, fake_labels, "fake")
    real_labels, fake_labels = _renumbered(real_labels, fake_labels, classes)
    home = _folds(real_labels, seed)
    classifiers, centre, scale = _fitted(real, real_labels, home)
    right = torch.zeros(len(real), dtype=torch.float64, device=real.device)
    hits = torch.zeros(FOLDS, len(fake), dtype=torch.float64, device=real.device)
    for fold, weight in enumerate(classifiers):
        mine = home == fold
        right[mine] = (_told(real[mine], centre, scale, weight) == real_labels[mine]).double()
        hits[fold] = (_told(fake, centre, scale, weight) == fake_labels).double()
    asked = fake_labels.bincount().nonzero()[:, 0]
    shown, chosen = _balanced(hits.mean(0), fake_labels, asked)
    possible, looked = _balanced(right, real_labels, asked)
    without = torch.tensor([_balanced(each, fake_labels, asked)[0] for each in hits])      # each fold of the reals
    learned = float((FOLDS - 1) * without.var(correction=0))
    return {
        "conditional_accuracy": shown,
        f"conditional_accuracy{STD_ERROR}": (chosen + learned) ** 0.5,
        "conditional_accuracy_real": possible,
        f"conditional_accuracy_real{STD_ERROR}": looked**0.5,
    }


def _renumbered(real_labels: Tensor, fake_labels: Tensor, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return both, with the classes of the reals numbered from 0 without gaps."""
    reals, fakes = counts(real_labels, fake_labels)
    for each in ((reals < LEAST) & (reals + fakes > 0)).nonzero()[:, 0].tolist():
        raise EvaluationError(
            f"{called(each, classes)} has {int(reals[each])} real and {int(fakes[each])} fake images: a classifier "
            f"takes {LEAST} real ones of each class, so give more data, or data without that class."
        )
    present = reals > 0
    if int(present.sum()) < 2:
        raise EvaluationError("All images are of one class, so there is nothing to tell apart: leave this metric out.")
    number = present.long().cumsum(0) - 1
    return number[real_labels], number[fake_labels]


def _folds(labels: Tensor, seed: int) -> Tensor:
    """Return the fold [N] of each image: every class is spread over them evenly, by chance."""
    chance = torch.Generator().manual_seed(key("conditional accuracy", seed))
    home = torch.empty_like(labels)
    for each in range(int(labels.max()) + 1):
        places = (labels == each).nonzero()[:, 0]
        order = torch.randperm(len(places), generator=chance).to(labels.device)
        home[places] = (order + each) % FOLDS      # the first fold is not every class's largest
    return home


def _fitted(x: Tensor, labels: Tensor, home: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the weight [d, K] of each fold's classifier, and what features are shifted and divided by, both [d].

    Minimises the squared error of (features - centre) / scale to one-hot classes, in which all classes weigh alike.
    """
    onehot = torch.nn.functional.one_hot(labels).double()
    share = (1 / (onehot.sum(0) * onehot.shape[1]))[labels][:, None]      # of each image in the whole
    centre = (share * x).sum(0)
    scale = (share * (x - centre).square()).sum(0).sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    target = onehot - 1 / onehot.shape[1]
    grams, crosses = [], []
    for fold in range(FOLDS):
        mine = home == fold
        rows = (x[mine] - centre) / scale
        grams.append(rows.T @ (share[mine] * rows))
        crosses.append(rows.T @ (share[mine] * target[mine]))
    gram, cross = torch.stack(grams).sum(0), torch.stack(crosses).sum(0)
    ridge = RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    weights = [torch.linalg.solve(gram - own + ridge, cross - of) for own, of in zip(grams, crosses)]
    return weights, centre, scale


def _told(x: Tensor, centre: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
    """Return the class [N] that the classifier sees."""
    return (((x - centre) / scale) @ weight).argmax(1)


def _balanced(right: Tensor, labels: Tensor, classes: Tensor) -> tuple[float, float]:
    """Return the mean over classes of the mean over their images, and its variance over the choice of these."""
    groups = [right[labels == each] for each in classes]
    variances = [group.var(correction=0) / max(1, len(group) - 1) for group in groups]
    means = torch.stack([group.mean() for group in groups])
    return float(means.mean()), float(torch.stack(variances).sum() / len(groups) ** 2)


CONDITIONAL_ACCURACY = Metric(
    conditional_accuracy,
    inputs=("real", "fake", "real_labels", "fake_labels", "seed", "classes"),
    smooth=False,
    least=lambda dimensions: LEAST,
)
