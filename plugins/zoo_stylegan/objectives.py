"""What StyleGAN2 minimises: adversarial terms with style mixing, lazy R1 and path length (Karras 2020, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from zoo.adversarial import Fakes, deceives, discriminator_loss, r1_loss
from zoo.losses import Adversarial, adversarial
from zoo.model import Model
from zoo.penalties import path_lengths
from zoo.recipe import Batch, Loss, Phase, Recipe, Terms

if TYPE_CHECKING:
    from zoo_stylegan.model import StyleGAN

BATCH = 32               # images a step
W_RATE = 0.005           # share by which the average style moves at each generator step
PATH_RATE = 0.01         # share by which the mean path length moves at each of its steps


def styles(model: StyleGAN, batch: Batch, mixing: float) -> tuple[Tensor, Tensor]:
    """Return w [N, w] of the batch's first latents, and styles [N, styles, w] with some mixed from second ones.

    Style mixing (Karras 2019, section 3.1): with probability `mixing`, layers from a random one on take another w.
    """
    n, generator = len(batch), model.generator
    w = generator.mapping(model.latent(n, batch.noise), batch.labels)
    mixed = generator.broadcast(w)
    if mixing > 0:
        other = generator.mapping(model.latent(n, batch.noise), batch.labels)
        start = 1 + batch.noise.integers(generator.styles - 1, n)
        keeps = batch.noise.uniform(n) >= mixing
        layer = torch.arange(generator.styles, device=w.device)
        first = (layer[None] < start[:, None]) | keeps[:, None]
        mixed = torch.where(first[:, :, None], mixed, generator.broadcast(other))
    return w, mixed


def mixed_fakes(mixing: float) -> Fakes:
    """Return how training fakes are made: mixed styles and fresh noise."""

    def make(model: Model, batch: Batch) -> Tensor:
        stylegan = cast("StyleGAN", model)
        _, mixed = styles(stylegan, batch, mixing)
        return stylegan.generator.synthesis(mixed, stylegan.generator.random_noise(len(batch), batch.noise))

    return make


@dataclass(frozen=True)
class GeneratorLoss:
    """The generator's adversarial loss; watches the batch's mean style for the average that truncation uses."""

    adversarial: Adversarial
    mixing: float

    def __call__(self, model: Model, batch: Batch) -> Terms:
        stylegan = cast("StyleGAN", model)
        w, mixed = styles(stylegan, batch, self.mixing)
        fake = stylegan.generator.synthesis(mixed, stylegan.generator.random_noise(len(batch), batch.noise))
        return Terms({"adversarial": deceives(self.adversarial, model, fake, batch)}, {"w": w.detach().float().mean(0)})


def move_w_average(model: Model, watched: Mapping[str, Tensor]) -> None:
    cast("StyleGAN", model).generator.w_average.lerp_(watched["w"], W_RATE)


def path_length_loss(weight: float, shrink: int) -> Loss:
    """Return weight E[(||J_w^T y|| - a)^2], a the running mean of the norm (equation 4), on 1/shrink of the batch."""

    def minimise(model: Model, batch: Batch) -> Terms:
        stylegan = cast("StyleGAN", model)
        n, generator = max(1, len(batch) // shrink), stylegan.generator
        labels = None if batch.labels is None else batch.labels[:n]
        w = generator.broadcast(generator.mapping(model.latent(n, batch.noise), labels))
        w.requires_grad_(True)      # also where the mapping stands still, as in some fine-tunes
        images = generator.synthesis(w, generator.random_noise(n, batch.noise))
        lengths = path_lengths(images, w, batch.noise.normal(*images.shape))
        penalty = (lengths - stylegan.path_length).square().mean()
        return Terms({"path_length": weight * penalty}, {"length": lengths.detach().mean()})

    return minimise


def move_path_length(model: Model, watched: Mapping[str, Tensor]) -> None:
    cast("StyleGAN", model).path_length.lerp_(watched["length"], PATH_RATE)


def phases(
    *, gamma: float, mixing: float = 0.9, path_weight: float = 2.0, r1_every: int = 16, path_every: int = 4
) -> tuple[Phase, ...]:
    """Return StyleGAN2's four turns: generator, path length, discriminator, R1."""
    loss = adversarial("nonsaturating")
    generator, discriminator = ("generator",), ("discriminator",)
    named: dict[str, float | str] = {"loss": loss.name, "mixing": mixing}
    turns = [Phase("generator", generator, GeneratorLoss(loss, mixing), after=move_w_average, settings=named)]
    if path_weight > 0:
        path = path_length_loss(path_weight, 2)
        turns.append(
            Phase("path_length", generator, path, path_every, after=move_path_length, settings={"weight": path_weight})
        )
    turns.append(Phase("discriminator", discriminator, discriminator_loss(loss, mixed_fakes(mixing)), settings=named))
    turns.append(Phase("r1", discriminator, r1_loss(gamma), r1_every, settings={"gamma": gamma}))
    return tuple(turns)


def trained_by(turns: tuple[Phase, ...]) -> Recipe:
    """Return the recipe of these turns, with what StyleGAN2 and StyleGAN3 have in common."""
    return Recipe(
        phases=turns,
        averaged=("generator",),
        critics=("discriminator",),
        batch=BATCH,
        lr=0.002,
        betas=(0.0, 0.99),
        ema_kimg=10.0,
    )
