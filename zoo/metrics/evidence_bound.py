"""How probable real images are to a model that says so, bounded: the evidence lower bound (ELBO; Kingma and Welling,
2014, arXiv:1312.6114, eq. 3), and how many latents it needs for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.data import normalise
from zoo.metrics.metric import Metric, mean_of
from zoo.metrics.reconstruction import INPUTS, labels_for, looked_at
from zoo.noise import Noise, key

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.model import Model

CHUNK = 64            # images that share a seed; part of what a seed means, so a constant
STEP = 2 / 255        # between neighbouring 8-bit values of images in [-1, 1]
ACTIVE = 0.01         # variance of a posterior's mean over images above which a latent is active (Burda et al., 2015)


def evidence_bound(
    model: Model, images: ImageSet, places: Sequence[int], seed: int, held_out: Tensor | None = None
) -> dict[str, float]:
    """Return minus the ELBO of the 8-bit images at these places, means with standard errors, and the active units.

    "nelbo" is an upper bound of -log P(image) in nats per image, "nelbo_reconstruction" and "nelbo_kl" its two parts,
    "bits_per_dim" the same as "nelbo" in bits per number of the image. A density becomes a bound for discrete images by
    uniform noise of a step's width on them (Theis et al., 2016, arXiv:1511.01844, section 3.1), and by the step's width
    itself: -log P <= -log p - D log(2 / 255). One latent is drawn for each image.

    "active_units" is how many latent numbers tell images apart: the variance over images of the posterior's mean is
    above 0.01 (Burda et al., 2015, arXiv:1509.00519, section 5.2).

    Images that the model was kept from in its training are looked at alone, where they are known: `looked_at`.

    Raises:
        Unsupported: the model has no encoder, or gives images no likelihood.
        EvaluationError: a model with classes, and data with others.
    """
    places = looked_at(places, held_out)
    labels = labels_for(model, images, places)
    reconstruction, divergence, means = [], [], []
    for start in range(0, len(places), CHUNK):
        part = slice(start, start + CHUNK)
        chance = Noise(key("evidence bound", seed, start))
        real = images.read(places[part])
        spread = (chance.uniform(*real.shape) - 0.5) * STEP
        given = (normalise(real.cpu()) + spread).to(model.device)
        found = model.bound(given, None if labels is None else labels[part], noise=chance)
        reconstruction.append(found.reconstruction.double().cpu() - real[0].numel() * log(STEP))
        divergence.append(found.divergence.double().cpu())
        means.append(model.encode(normalise(real).to(model.device)).mean.double().cpu())
    return _told(torch.cat(reconstruction), torch.cat(divergence), images) | {"active_units": _active(torch.cat(means))}


def _told(reconstruction: Tensor, divergence: Tensor, images: ImageSet) -> dict[str, float]:
    numbers = images.channels * images.resolution**2
    whole = reconstruction + divergence
    parts = {"nelbo": whole, "bits_per_dim": whole / (numbers * log(2)),
             "nelbo_reconstruction": reconstruction, "nelbo_kl": divergence}  # fmt: skip
    return {name: value for part, values in parts.items() for name, value in mean_of(part, values).items()}


def _active(means: Tensor) -> float:
    return float((means.var(0, correction=0) > ACTIVE).sum())


ELBO = Metric(evidence_bound, inputs=(*INPUTS, "seed"))
