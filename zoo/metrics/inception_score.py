"""How sure a classifier is of each fake, and how many classes it sees: the Inception Score.

Salimans et al., 2016, arXiv:1606.03498. It looks at no real image, and only a value of the 2015 Inception at its own
resize bears the name; of another classifier it is another measure, and named after that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.errors import EvaluationError
from zoo.metrics.features import logits_of
from zoo.metrics.metric import Metric
from zoo.noise import key
from zoo.uncertainty import STD_ERROR

if TYPE_CHECKING:
    from zoo.metrics.features import FeatureExtractor

SPLITS = 10          # as in the authors' program and those that followed it
LEAST = 2 * SPLITS   # a split of one image has the score 1, whatever it shows


def inception_score(fake: Tensor, *, classifier: FeatureExtractor, seed: int = 0) -> dict[str, float]:
    """Return the score of fakes with features [M, d], which an extractor's classifier looks at.

    Values, named NAME = "inception_score", or "classifier_score_..." after another classifier: NAME, the mean over ten
    splits; NAME_std, their standard deviation, which papers give; NAME_std_error, the standard error of the mean. There
    are always ten splits, as the score of a split of n images is at most n and low for small n: values with other
    numbers of images are not comparable. `seed` shuffles the images, which may lie class by class.

    Raises:
        EvaluationError: fewer than 20 images, the extractor has no classifier, or features are not finite.
    """
    if fake.ndim != 2 or len(fake) < LEAST:
        raise EvaluationError(f"{len(fake)} fake images are too few for a score in {SPLITS} splits: give {LEAST}.")
    if not fake.isfinite().all():
        raise EvaluationError("Features of the fake images are not all finite: look there for NaN or infinity.")
    to_logits = logits_of(classifier)
    order = torch.randperm(len(fake), generator=torch.Generator().manual_seed(key("inception score", seed)))
    shuffled = fake[order.to(fake.device)]
    logits = (to_logits(part) for part in splits(shuffled))      # one split at a time: there may be many classes
    mean, std = score(logits)
    name = score_name(classifier)
    return {name: mean, f"{name}_std": std, f"{name}{STD_ERROR}": std / math.sqrt(SPLITS - 1)}


def score_name(extractor: FeatureExtractor) -> str:
    """Return what the score by this extractor's classifier is called."""
    if extractor.name == "inception":
        return "inception_score"
    return "classifier_score_" + re.sub(r"\W+", "_", extractor.name.removeprefix("timm:")).strip("_").lower()


def splits(rows: Tensor, count: int = SPLITS) -> list[Tensor]:
    """Return rows [M, ...] in so many parts, whose sizes differ by one at most."""
    edges = [i * len(rows) // count for i in range(count + 1)]
    return [rows[start:stop] for start, stop in pairwise(edges)]


def score(parts: Iterable[Tensor]) -> tuple[float, float]:
    """Return mean and standard deviation (divided by their number) over parts with logits [n, K] of
    exp of the mean over images of KL(p(y|x) || p(y)), where p(y) is the mean of p(y|x) over the part.
    """
    scores = []
    for logits in parts:
        told = logits.double().log_softmax(1)
        overall = told.logsumexp(0) - math.log(len(told))      # a mean of probabilities that underflow is not 0 here
        scores.append((told.exp() * (told - overall)).sum(1).mean().exp())
    each = torch.stack(scores)
    return float(each.mean()), float(each.std(correction=0))


INCEPTION_SCORE = Metric(
    inception_score, inputs=("fake", "classifier", "seed"), smooth=False, least=lambda dimensions: LEAST
)
