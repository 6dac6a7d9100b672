"""The loss of an autoencoder as data: what it shows of a batch, and further terms on what is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.adversarial import DiscriminatorLoss, Fakes, deceives
from zoo.errors import ConfigError
from zoo.judged import joined
from zoo.losses import Adversarial
from zoo.model import Model
from zoo.perceptual import Perceptual
from zoo.recipe import Batch, Terms

CRITIC = "discriminator"
SMALLEST, LARGEST = 1e-4, 1e4      # beside the gradient that an adaptive weight divides by, and of that weight


class Reconstruction(NamedTuple):
    """A batch as the decoder shows it."""

    images: Tensor             # [N, C, H, W] float32, not limited to [-1, 1]
    terms: Terms               # of the architecture's own objective
    slope: Tensor | float      # what a further distance of the images is multiplied with, to weigh as much as the error


Show = Callable[[Model, Batch], Reconstruction]
Part = Callable[[Batch, Reconstruction], Terms]      # a further term on what is shown, such as a perceptual distance


@dataclass(frozen=True)
class AutoencoderLoss:
    """The objective of an autoencoder, and further terms on the same images."""

    show: Show
    parts: tuple[Part, ...] = ()

    def whole(self, model: Model, batch: Batch) -> Reconstruction:
        """Return what is shown with the terms of all parts."""
        shown = self.show(model, batch)
        return shown._replace(terms=joined(shown.terms, *(part(batch, shown) for part in self.parts)))

    def __call__(self, model: Model, batch: Batch) -> Terms:
        return self.whole(model, batch).terms


@dataclass(frozen=True)
class PerceptualPart:
    """weight times the perceptual distance of image and reconstruction, as heavy as the error that stands beside it."""

    distance: Perceptual
    weight: float = 1.0

    def __call__(self, batch: Batch, shown: Reconstruction) -> Terms:
        distance = self.distance(shown.images, batch.images).mean()
        return Terms({"perceptual": self.weight * shown.slope * distance}, {"distance": distance.detach()})


@dataclass(frozen=True)
class Deceiving:
    """An autoencoder's loss with a critic to deceive (VQGAN; Esser et al., 2021, arXiv:2012.09841, eq. 6 and 7).

    The critic's term comes after the first part `start` of the training, and is as strong as all else at the decoder's
    last layer, times `weight`: see `adaptive_weight`, which is that of a process's part of the batch and of a
    micro-batch.
    """

    loss: AutoencoderLoss
    adversarial: Adversarial
    weight: float
    start: float

    def __call__(self, model: Model, batch: Batch) -> Terms:
        shown = self.loss.whole(model, batch)
        factor = term = shown.images.new_zeros(())
        if batch.progress >= self.start:
            term = deceives(self.adversarial, model, shown.images, batch)
            factor = self.weight * adaptive_weight(shown.terms.total(), term, last_layer(model))
        return joined(shown.terms, Terms({"adversarial": factor * term}, {"adaptive_weight": factor}))


@dataclass(frozen=True)
class Delayed:
    """A loss that counts for nothing in the first part `start` of the training, and watches all the same."""

    loss: DiscriminatorLoss
    start: float

    @property
    def make(self) -> Fakes:
        """How fakes are made, for further parts of the same turn."""
        return self.loss.make

    def __call__(self, model: Model, batch: Batch) -> Terms:
        terms = self.loss(model, batch)
        if batch.progress >= self.start:
            return terms
        return Terms({name: 0 * term for name, term in terms.minimise.items()}, terms.watch)


@dataclass(frozen=True)
class Reconstructed:
    """Makes the images that a critic has to tell from the batch's: those of an autoencoder."""

    show: Show

    def __call__(self, model: Model, batch: Batch) -> Tensor:
        return self.show(model, batch).images


def adaptive_weight(others: Tensor, adversarial: Tensor, layer: Tensor) -> Tensor:
    """Return ||grad others|| / (||grad adversarial|| + 1e-4), at most 1e4 (Esser et al., 2021, eq. 7).

    The bound is the authors' code's.

    Args:
        others, adversarial: scalars that depend on the layer.
        layer: weights of the decoder's last layer.
    """
    norms = [torch.autograd.grad(term, layer, retain_graph=True)[0].norm() for term in (others, adversarial)]
    ratio: Tensor = norms[0] / (norms[1] + SMALLEST)
    return ratio.clamp(max=LARGEST).detach()


def last_layer(model: Model) -> Tensor:
    """Return the weight of the decoder's last layer.

    Raises:
        ConfigError: it stands still, so nothing tells how strong the terms are.
    """
    weight = model.get_submodule("decoder").get_submodule("to_image").get_parameter("weight")
    if not weight.requires_grad:
        raise ConfigError("decoder.to_image.weight stands still: a critic's weight is measured there, so let it move.")
    return weight


def let_go(model: Model) -> None:
    """Take the critic off an autoencoder, which is whole without it."""
    if CRITIC in model.networks():
        delattr(model, CRITIC)
        model.critic = None
