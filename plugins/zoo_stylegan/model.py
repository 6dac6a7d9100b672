"""StyleGAN2 (Karras et al., 2020, arXiv:1912.04958): a mapped style modulates every layer of the synthesis."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.model import Model, ModelConfig
from zoo.noise import Noise
from zoo.recipe import Recipe
from zoo_stylegan.networks import Discriminator, Generator
from zoo_stylegan.objectives import phases


class StyleGANConfig(ModelConfig):
    """Table 1's configuration F by default, with half the channels above 32x32 as the paper uses at 256x256."""

    resolution: int = Field(256, ge=8, le=2048, description="height and width of the images, a power of two")
    latent: int = Field(512, ge=1, le=8192, description="numbers in z")
    w: int = Field(512, ge=1, le=8192, description="numbers in a style")
    mapping_layers: int = Field(8, ge=1, le=32, description="fully connected layers from z to w")
    mapping_rate: float = Field(0.01, gt=0, le=1, description="learning rate multiplier of the mapping network")
    channel_base: int = Field(16384, ge=32, le=2**20, description="channels times resolution")
    channel_max: int = Field(512, ge=1, le=8192, description="most channels of any layer")
    synthesis: Literal["skip", "resnet", "orig"] = Field("skip", description="how the generator joins resolutions")
    judging: Literal["resnet", "orig"] = Field("resnet", description="how the discriminator joins resolutions")
    stddev_group: int = Field(4, ge=1, le=64, description="samples in a group of minibatch standard deviation")
    stddev_channels: int = Field(1, ge=0, le=64, description="its channels; 0: none")
    conv_clamp: float | None = Field(None, gt=0, description="clamp activations to this; 256 keeps float16 finite")

    @field_validator("resolution")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("must be a power of two")
        return value


class StyleGAN(Model):
    """StyleGAN2; class-conditional when `num_classes` is given."""

    Config = StyleGANConfig
    config: StyleGANConfig

    def __init__(self, config: StyleGANConfig):
        super().__init__(config)
        self.latent_size = config.latent
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)
        self.path_length = nn.Buffer(torch.zeros(()))      # running mean that path length regularisation aims at

    def generate(
        self,
        z: Tensor,
        labels: Tensor | None,
        *,
        psi: float = 1.0,
        chance: Noise,
        noise: Literal["random", "const", "none"] = "random",
        cutoff: int | None = None,
    ) -> Tensor:
        """Return raw images.

        Args:
            psi: styles are pulled towards the average style, w = average + psi (w - average).
            noise: fresh noise, each layer's stored noise, or none.
            cutoff: how many layers psi reaches, from 4x4 up; None: all.
        """
        generator = self.averaged("generator")
        assert isinstance(generator, Generator)
        w = generator.broadcast(generator.mapping(z, labels))
        if psi != 1:
            reached = torch.arange(generator.styles, device=w.device) < (generator.styles if cutoff is None else cutoff)
            scale = torch.where(reached, psi, 1.0)[:, None]
            w = generator.w_average + scale * (w - generator.w_average)
        sources: dict[str, Noise | None] = {"random": chance, "none": None}
        if noise == "const":
            return generator.synthesis(w, generator.constant_noise())
        if noise not in sources:
            raise ConfigError(f"noise={noise!r}: possible are random, const, none.")
        return generator.synthesis(w, generator.random_noise(len(z), sources[noise]))

    def recipe(self, *, gamma: float | None = None, mixing: float = 0.9, path_weight: float = 2.0) -> Recipe:
        """Appendix B: non-saturating loss, lazy R1 every 16 steps, path length every 4, style mixing 0.9.

        Args:
            gamma: weight of R1; None: 0.0002 pixels / batch, the heuristic of Karras 2020a (arXiv:2006.06676).
            mixing: probability of style mixing; that paper trains small images without it.
            path_weight: weight of path length regularisation; 0, as for small images there, leaves it out.
        """
        recipe = Recipe(
            phases=(),
            averaged=("generator",),
            critics=("discriminator",),
            batch=32,
            lr=0.002,
            betas=(0.0, 0.99),
            ema_kimg=10.0,
        )
        if gamma is None:
            gamma = 0.0002 * self.config.resolution**2 / recipe.batch
        return replace(recipe, phases=phases(gamma=gamma, mixing=mixing, path_weight=path_weight))
