"""R3GAN (Huang et al., 2024, arXiv:2501.05441): a relativistic loss with R1 and R2, and a network without tricks."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from zoo.adversarial import adversarial_phases
from zoo.losses import adversarial
from zoo.model import Model
from zoo.noise import Noise
from zoo.recipe import Recipe
from zoo_r3gan.config import R3GANConfig
from zoo_r3gan.networks import Discriminator, Generator


class R3GAN(Model):
    """Networks: `generator`, `discriminator`; class-conditional when `num_classes` is given."""

    Config = R3GANConfig
    config: R3GANConfig

    def __init__(self, config: R3GANConfig):
        super().__init__(config)
        self.latent_size = config.latent
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    def generate(self, z: Tensor, labels: Tensor | None, *, psi: float = 1.0, chance: Noise | None = None) -> Tensor:
        images: Tensor = self.averaged("generator")(z, labels)
        return images

    @torch.no_grad()
    def refit(self) -> None:
        """Keep images and logits as they were when labels join: a new class begins as the parent's mixture of all."""
        if not self.adapted.get("generator.head.weight", "").startswith("grown"):
            return
        for generator in {self.generator, self.averaged("generator")}:
            cast("Generator", generator).head.weight[:, self.config.latent :] = 0
        if "discriminator" not in self.absent:
            weight = self.discriminator.embedding.weight      # [channels, classes]: the logit is copied to each channel
            weight.fill_(1 / len(weight))

    def recipe(self) -> Recipe:
        """RpGAN with R1 and R2 at every step (section 2); gamma falls to a tenth and the learning rate to a quarter.

        Adam's second beta rises from 0.9 to 0.99. The authors' cosine schedules end after 20 million images (200
        million for ImageNet); here they span the training.
        """
        return Recipe(
            phases=adversarial_phases(adversarial("relativistic"), gamma=self.config.penalty),
            averaged=("generator",),
            critics=("discriminator",),
            batch=64,
            lr=2e-4,
            betas=(0.0, 0.9),
            final_betas=(0.0, 0.99),
            anneal="cosine",
            final_rate=0.25,
            ema_kimg=500.0,
        )
