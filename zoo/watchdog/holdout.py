"""Images kept out of a training, by which it is known whether the critic learns the others by heart."""

from __future__ import annotations

import numpy as np

from zoo.data import ImageSet
from zoo.data.order import Places, permutation

SHARE, LEAST, MOST = 0.01, 64, 256      # of the images; at least so many, or none at all; at most so many


def spare(images: ImageSet) -> int:
    """Return how many images can be kept out: none of a set where 1 % is less than 64, or that is streamed."""
    count = int(len(images) * SHARE)
    return 0 if count < LEAST or images.groups is not None else min(count, MOST)


def divided(images: ImageSet, count: int) -> tuple[ImageSet, ImageSet | None]:
    """Return the images to train on, and those held out: always the same ones of a set of that size."""
    if not count:
        return images, None
    held = kept_out(len(images), count)
    return images.only(np.setdiff1d(np.arange(len(images)), held)), images.only(held)


def kept_out(size: int, count: int) -> Places:
    """Return the places of the images that are held out of a set of that size, in rising order."""
    return np.sort(permutation(size, "held out")[:count])
