"""Relativistic GAN (Jolicoeur-Martineau, 2019, arXiv:1807.00734): is this real image more real than that fake one?"""

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn.functional import softplus

from zoo import Batch, Model, ModelConfig, Phase, Recipe, Terms
from zoo.adversarial import fakes, r1_loss
from zoo.noise import Noise
from zoo_rsgan.networks import Discriminator, Generator


class Config(ModelConfig):
    num_classes: int = Field(0, ge=0, le=0, description="not class-conditional")
    latent: int = Field(64, ge=1, le=4096, description="numbers in a latent vector")
    width: int = Field(64, ge=1, le=1024, description="channels of every layer")
    gamma: float = Field(1.0, gt=0, description="strength of the R1 penalty")

    @field_validator("resolution")
    @classmethod
    def _power_of_two(cls, resolution: int) -> int:
        if resolution < 8 or resolution & (resolution - 1):
            raise ValueError("must be a power of two from 8")
        return resolution


class RSGAN(Model):
    Config = Config

    def __init__(self, config: Config):
        super().__init__(config)
        self.latent_size = config.latent
        self.generator = Generator(config.latent, config.channels, config.resolution, config.width)
        self.discriminator = Discriminator(config.channels, config.resolution, config.width)

    def generate(self, z: Tensor, labels: Tensor | None, *, psi: float, chance: Noise) -> Tensor:
        return self.averaged("generator")(z, labels)

    def recipe(self) -> Recipe:
        phases = (
            Phase("discriminator", ("discriminator",), discriminator_loss),
            Phase("r1", ("discriminator",), r1_loss(self.config.gamma), every=4),
            Phase("generator", ("generator",), generator_loss),
        )
        return Recipe(phases, averaged=("generator",), critics=("discriminator",))


def discriminator_loss(model: RSGAN, batch: Batch) -> Terms:
    with torch.no_grad():
        fake = fakes(model, batch)
    return Terms({"relativistic": softplus(model.discriminator(fake) - model.discriminator(batch.images)).mean()})


def generator_loss(model: RSGAN, batch: Batch) -> Terms:
    fake = model.discriminator(fakes(model, batch))
    return Terms({"relativistic": softplus(model.discriminator(batch.images) - fake).mean()})
