"""How many images can be looked at in a given time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from zoo.errors import EvaluationError
from zoo.metrics.reference import are_kept
from zoo.metrics.sampling import CHUNK

if TYPE_CHECKING:
    from zoo.metrics.evidence import Evidence
    from zoo.metrics.metric import Metric

RESERVE = 0.2      # share of the time for the metrics themselves, and for being wrong about the rest


def fitting(shown: Evidence, seconds: float) -> tuple[int, int]:
    """Return how many real and how many fake images can be looked at in so many seconds, in whole batches.

    Two batches of each are looked at, to see how long that takes. Of real images whose features are kept from an
    earlier evaluation all are taken; otherwise as many of both, as far as there are.
    """
    begun = time.monotonic()
    batch, reals, fakes = shown.batch, len(shown.places), shown.samples
    fake = _seconds(lambda start, stop: shown.extractor(shown.fakes.read(start, stop)), batch, fakes)
    free = are_kept(shown.images, shown.places, shown.extractor)
    read = shown.images.read
    real = 0.0 if free else _seconds(lambda i, j: shown.extractor(read(shown.places[i:j])), batch, reals)
    left = (1 - RESERVE) * seconds - (time.monotonic() - begun)
    if free:
        return reals, _whole(left / fake, batch, fakes)
    both = left / (fake + real)
    if both >= reals:
        return reals, _whole((left - real * reals) / fake, batch, fakes)
    if both >= fakes:
        return _whole((left - fake * fakes) / real, batch, reals), fakes
    return _whole(both, batch, reals), _whole(both, batch, fakes)


def within(
    metrics: Mapping[str, Metric], real: int, fake: int, dimensions: int
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return names of the metrics that so many images are enough for, and of the others the reason why not.

    Raises:
        EvaluationError: they are enough for none.
    """
    enough, left_out = [], {}
    for name, metric in metrics.items():
        try:
            metric.check(name, real, fake, dimensions)
            enough.append(name)
        except EvaluationError as error:
            left_out[name] = str(error)
    if not enough:
        raise EvaluationError(f"The budget is too small for any of the metrics: {next(iter(left_out.values()))}")
    return tuple(enough), left_out


def _seconds(look: Callable[[int, int], object], batch: int, images: int) -> float:
    """Return seconds an image: of the second batch, as the first builds what later ones find."""
    batch = min(batch, images)
    look(0, batch)
    start = min(max(batch, CHUNK), images - batch)      # of a model's images, others than those just drawn
    begun = time.monotonic()
    look(start, start + batch)
    return (time.monotonic() - begun) / batch


def _whole(images: float, batch: int, most: int) -> int:
    """Return so many images in whole batches: at least one batch, at most all."""
    return min(most, max(batch, int(images) // batch * batch))
