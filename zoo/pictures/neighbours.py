"""Samples beside the images that they are most like: what a model may have copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.metrics.manifold import distances
from zoo.metrics.metric import matched
from zoo.metrics.reference import reference_features
from zoo.metrics.sampling import Sampler
from zoo.metrics.sharing import Crew
from zoo.pictures.lettering import lettered
from zoo.pictures.samples import Progress, count

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.data import ImageSet
    from zoo.metrics.features import FeatureExtractor
    from zoo.model import Model

BATCH = 64      # images whose features are computed at once


def neighbour_sheet(
    model: Model,
    images: ImageSet,
    extractor: FeatureExtractor,
    *,
    n: int = 8,
    k: int = 4,
    samples: int | None = None,
    seed: int = 0,
    psi: float = 1.0,
    progress: Progress | None = None,
) -> Image:
    """Return n rows: a sample and the k images nearest to it, nearest first, with their distances in the features.

    The samples that are nearest to an image come first: if any are copies, these are. Distances depend on the
    features, so compare them only within a picture.

    Args:
        images: of the model's resolution and channels, such as those that it was trained on.
        samples: how many of them the n shown are taken from; None: n.
        seed: of the samples: those that `zoo.evaluate` draws.
        progress: called with ("real" or "fake", images done, images in all).

    Raises:
        ConfigError: n is not 1 to 1000, k not 1 to the number of images, or samples fewer than n.
        EvaluationError: features cannot be had, or the model makes values that are not finite.
    """
    n, k = count("n", n), count("k", k, most=min(100, len(images)))
    samples = n if samples is None else samples
    if not isinstance(samples, int) or samples < n:
        raise ConfigError(f"samples={str(samples)[:60]} is not possible: give an integer of n={n} or more.")
    places = range(len(images))
    real = reference_features(images, places, extractor, batch=BATCH, progress=_told(progress, "real", len(images)))
    sampler = Sampler.of(model, images, seed=seed, psi=psi)
    told = _told(progress, "fake", samples)
    fake = sampler.features(samples, extractor, batch=BATCH, progress=told, crew=Crew())
    found, apart = nearest(fake, real, k)
    shown = apart[:, 0].argsort(stable=True)[:n].tolist()
    fakes = {index: sampler.read(index, index + 1) for index in sorted(shown)}      # each chunk is made once
    tiles, captions = [], []
    for index in shown:
        tiles += [fakes[index], images.read(found[index].tolist()).cpu()]
        captions += ["", *(f"{distance:.3g}" for distance in apart[index].tolist())]
    heads = {0: "fake", 1: f"nearest of {images.name}, by {extractor.name}"}
    return lettered(torch.cat(tiles), 1 + k, heads=heads, captions=captions, halves=1)


def nearest(fake: Tensor, real: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return for fake features [M, d] the places [M, k] of the nearest real ones [N, d], and how far off [M, k].

    Raises:
        EvaluationError: values that are not finite.
    """
    real, fake = matched(real, fake, least=1)
    parts = [distance.topk(k, dim=1, largest=False) for _, distance in distances(fake, real)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts]).sqrt()


def _told(progress: Progress | None, stage: str, total: int) -> Callable[[int], None]:
    return lambda done: None if progress is None else progress(stage, done, total)
