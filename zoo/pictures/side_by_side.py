"""Real images and samples next to each other, so that an eye compares them."""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING

import torch

from zoo.metrics.sampling import CHUNK, Sampler
from zoo.pictures.lettering import lettered
from zoo.pictures.samples import Progress, count
from zoo.subjects import chosen

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.data import ImageSet
    from zoo.model import Model


def real_and_fake(
    model: Model,
    images: ImageSet,
    *,
    n: int = 32,
    seed: int = 0,
    psi: float = 1.0,
    progress: Progress | None = None,
) -> Image:
    """Return n images of a set on the left and n samples on the right, of classes as frequent as in the set.

    Args:
        images: of the model's resolution and channels.
        n: images of each side; both are chosen by the seed, and by nobody.
        progress: called with ("fake", images done, images in all).

    Raises:
        ConfigError: n is not 1 to 1000.
        EvaluationError: the set has fewer images, or the model makes values that are not finite.
    """
    n = count("n", n)
    columns = ceil(sqrt(n / 2))      # of one side: both together are about square
    real = images.read(chosen(images, n, seed, "n")).cpu()
    parts = []
    for part in Sampler.of(model, images, seed=seed, psi=psi).batches(n, CHUNK):
        parts.append(part)
        if progress is not None:
            progress("fake", sum(map(len, parts)), n)
    blank = real.new_full((-n % columns, *real.shape[1:]), 255)      # so that all rows are whole
    sides = [torch.split(torch.cat([side, blank]), columns) for side in (real, torch.cat(parts))]
    both = torch.cat([row for rows in zip(*sides) for row in rows])
    heads = {0: f"real: {images.name}", columns: "fake"}
    return lettered(both, 2 * columns, heads=heads, halves=columns)
