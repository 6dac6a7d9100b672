"""The phases that generative adversarial networks share, built from a loss and a way to make fakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.losses import Adversarial
from zoo.penalties import gradient_penalty
from zoo.recipe import Batch, Loss, Phase, Terms

if TYPE_CHECKING:
    from zoo.model import Model

Fakes = Callable[["Model", Batch], Tensor]     # (model, batch) -> images [N, C, H, W] made by the live generator


def fakes(model: Model, batch: Batch) -> Tensor:
    """Return one fake for each image of the batch, with that image's label."""
    images: Tensor = model.get_submodule("generator")(model.latent(len(batch), batch.noise), batch.labels)
    return images


def discriminator_loss(loss: Adversarial, make: Fakes = fakes) -> Loss:
    """Return the discriminator's loss on reals and fakes; watches both means, which tell who is winning."""

    def minimise(model: Model, batch: Batch) -> Terms:
        with torch.no_grad():
            fake = make(model, batch)
        discriminator = model.get_submodule("discriminator")
        on_real = discriminator(batch.images, batch.labels).float()
        on_fake = discriminator(fake, batch.labels).float()
        watch = {
            "logits_real": on_real.detach().mean(),
            "logits_fake": on_fake.detach().mean(),
            "sign_real": on_real.detach().sign().mean(),      # ADA's overfitting measure r_t (Karras 2020a, eq. 1)
        }
        return Terms({"adversarial": loss.discriminator(on_real, on_fake)}, watch)

    return minimise


def generator_loss(loss: Adversarial, make: Fakes = fakes) -> Loss:
    """Return the generator's loss."""

    def minimise(model: Model, batch: Batch) -> Terms:
        logits = model.get_submodule("discriminator")(make(model, batch), batch.labels)
        return Terms({"adversarial": loss.generator(logits.float())})

    return minimise


def r1_loss(gamma: float) -> Loss:
    """Return gamma / 2 times the R1 penalty: the discriminator's squared gradient on reals."""

    def minimise(model: Model, batch: Batch) -> Terms:
        penalty = gradient_penalty(model.get_submodule("discriminator"), batch.images, batch.labels)
        return Terms({"r1": 0.5 * gamma * penalty}, {"gradient": penalty.detach()})

    return minimise


def adversarial_phases(
    loss: Adversarial, *, make: Fakes = fakes, generator_rate: float = 1.0, discriminator_rate: float = 1.0
) -> tuple[Phase, ...]:
    """Return the two phases of a plain GAN: the discriminator's turn, then the generator's."""
    judge, make_fakes = discriminator_loss(loss, make), generator_loss(loss, make)
    return (
        Phase("discriminator", ("discriminator",), judge, rate=discriminator_rate, settings={"loss": loss.name}),
        Phase("generator", ("generator",), make_fakes, rate=generator_rate, settings={"loss": loss.name}),
    )
