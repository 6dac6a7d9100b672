"""How well an autoencoder brings back real images: PSNR, SSIM and LPIPS of an image and what is decoded from it.

The latents are the mean of the posterior, so nothing is drawn at random. Reconstructions are rounded to 8 bits as they
would be when saved, and both are compared as RGB: RGBA is laid over white.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from math import log10
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.data import normalise
from zoo.errors import EvaluationError
from zoo.images import to_bytes
from zoo.metrics.features import to_rgb
from zoo.metrics.lpips import LPIPS, at_size, weights_of
from zoo.metrics.metric import Metric, mean_of
from zoo.metrics.similarity import psnr, ssim

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.model import Model

PIXELS = 2**20                              # of images that are compared at once
MOST_AT_ONCE = 64                           # images
MOST_DECIBELS = 10 * log10(12 * 255**2)     # 58.9: of numbers that differ by no more than rounding to 8 bits makes them
NETWORK = "alex"
LEAST = 2                                   # images that have a mean with a standard error
INPUTS = ("model", "images", "places", "held_out")


def reconstruction(
    model: Model, images: ImageSet, places: Sequence[int], held_out: Tensor | None = None
) -> dict[str, float]:
    """Return {"psnr", "ssim"} and their standard errors: means over the images at these places; see `looked_at`.

    The PSNR of an image counts as 58.9 dB at most, that of rounding errors, so that equal images have one.

    Raises:
        Unsupported: the model has no encoder.
        EvaluationError: a model with classes, and data with others; images below 11x11 pixels.
    """
    pairs = reconstructed(model, images, looked_at(places, held_out))
    found = [(psnr(*pair).clamp_max(MOST_DECIBELS), ssim(*pair)) for pair in pairs]
    decibels, structure = (torch.cat(each).cpu() for each in zip(*found))
    return mean_of("psnr", decibels) | mean_of("ssim", structure)


def reconstruction_lpips(
    model: Model, images: ImageSet, places: Sequence[int], held_out: Tensor | None = None
) -> dict[str, float]:
    """Return {"lpips", "lpips_std_error"}: the mean over the images at these places, on AlexNet; see `looked_at`.

    Images below 64 pixels are enlarged to that, larger ones are compared as they are.

    Raises:
        Unsupported: the model has no encoder.
        EvaluationError: a model with classes, and data with others; no weights of LPIPS.
    """
    measure = LPIPS(NETWORK, model.device)
    pairs = reconstructed(model, images, looked_at(places, held_out))
    return mean_of("lpips", torch.cat([measure(at_size(a), at_size(b)) for a, b in pairs]).cpu())


def looked_at(places: Sequence[int], held_out: Tensor | None) -> list[int]:
    """Return the places of images that the model was kept from in its training, if two such are known; else all.

    Args:
        held_out: bool [N], which of the images those are; None: none.
    """
    unseen = [] if held_out is None else [place for place, kept in zip(places, held_out.tolist()) if kept]
    return unseen if len(unseen) >= LEAST else list(places)


def reconstructed(model: Model, images: ImageSet, places: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of images and of what the model decodes from each, both RGB [N, 3, H, W] float32 in [-1, 1]."""
    step = max(1, min(MOST_AT_ONCE, PIXELS // images.resolution**2))
    labels = labels_for(model, images, places)
    for start in range(0, len(places), step):
        real = images.read(places[start : start + step]).to(model.device)
        latents = model.encode(normalise(real)).mean
        shown = model.decode(latents) if labels is None else model.decode(latents, labels[start : start + step])
        if not shown.isfinite().all():
            raise EvaluationError("The model decodes NaN or infinity: its training diverged, so take earlier weights.")
        made = to_bytes(shown).to(model.device)
        yield normalise(to_rgb(real)), normalise(to_rgb(made))


def labels_for(model: Model, images: ImageSet, places: Sequence[int]) -> Tensor | None:
    """Return the class [N] of each image, or None for a model without classes.

    Raises:
        EvaluationError: the data have no classes, or another number of them than the model.
    """
    classes = model.config.num_classes
    if not classes:
        return None
    if images.labels is None or len(images.classes) != classes:
        theirs = f"has {len(images.classes)}" if images.classes else "has none"
        raise EvaluationError(
            f"The model decodes images of {classes} classes, but {images.name} {theirs}: give data of its classes."
        )
    return images.labels_of(places)


RECONSTRUCTION = Metric(reconstruction, inputs=INPUTS)
RECONSTRUCTION_LPIPS = Metric(reconstruction_lpips, inputs=INPUTS, networks=partial(weights_of, NETWORK))
