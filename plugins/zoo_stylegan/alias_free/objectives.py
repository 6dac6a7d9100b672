"""What StyleGAN3 minimises: non-saturating terms and lazy R1, without mixed styles and path length (Karras 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from zoo.adversarial import deceives, discriminator_loss, r1_loss
from zoo.losses import Adversarial, adversarial
from zoo.model import Model
from zoo.recipe import Batch, Phase, Terms

if TYPE_CHECKING:
    from zoo_stylegan.alias_free.model import StyleGAN3

W_RATE = 0.002      # share by which the average style moves at each generator step


@dataclass(frozen=True)
class GeneratorLoss:
    """The generator's adversarial loss; watches the batch's mean style and the mean squares of the layers' inputs."""

    adversarial: Adversarial

    def __call__(self, model: Model, batch: Batch) -> Terms:
        generator = cast("StyleGAN3", model).generator
        w = generator.mapping(model.latent(len(batch), batch.noise), batch.labels)
        squares: list[Tensor] = []
        fake = generator.synthesis(generator.broadcast(w), squares=squares)
        watch = {"w": w.detach().float().mean(0), "magnitudes": torch.stack(squares).float()}
        return Terms({"adversarial": deceives(self.adversarial, model, fake, batch)}, watch)


def move_averages(model: Model, watched: Mapping[str, Tensor]) -> None:
    stylegan = cast("StyleGAN3", model)
    stylegan.generator.w_average.lerp_(watched["w"], W_RATE)
    for kept, seen in zip(stylegan.generator.magnitudes(), watched["magnitudes"], strict=True):
        kept.lerp_(seen, 1 - stylegan.config.magnitude_ema_beta)


def phases(*, gamma: float, generator_rate: float = 1.25, r1_every: int = 16) -> tuple[Phase, ...]:
    """Return StyleGAN3's three turns: generator, discriminator, R1."""
    loss = adversarial("nonsaturating")
    settings: dict[str, float | str] = {"loss": loss.name}
    generator, discriminator = ("generator",), ("discriminator",)
    return (
        Phase(
            "generator", generator, GeneratorLoss(loss), rate=generator_rate, after=move_averages, settings=settings
        ),
        Phase("discriminator", discriminator, discriminator_loss(loss), settings=settings),
        Phase("r1", discriminator, r1_loss(gamma), r1_every, settings={"gamma": gamma}),
    )
