"""StyleGAN2 (Karras et al., 2020, arXiv:1912.04958): a mapped style modulates every layer of the synthesis."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Literal, cast

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.model import Model
from zoo.noise import Noise
from zoo.recipe import Recipe
from zoo_stylegan.config import StyleGANConfig
from zoo_stylegan.networks import Discriminator, Generator
from zoo_stylegan.objectives import phases


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
        if cutoff is not None and not isinstance(cutoff, int):
            raise ConfigError(f"cutoff={str(cutoff)[:60]!r}: give the number of layers that psi reaches, or None.")
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

    def latent(self, n: int, noise: Noise, psi: float = 1.0) -> Tensor:
        """Return latents [n, latent], standard normal whatever psi: truncation acts on styles, in `generate`."""
        return noise.normal(n, self.latent_size)

    @torch.no_grad()
    def refit(self) -> None:
        """Keep the styles of z as they were when labels join it: a dense layer's scale falls with its inputs."""
        if not self.adapted["generator.mapping.layers.0.weight"].startswith("grown"):
            return
        for generator in {self.generator, self.averaged("generator")}:
            weight = cast("Generator", generator).mapping.layers[0].get_parameter("weight")
            weight[:, self.config.latent :] = 0      # a new class begins as the parent's mixture of all
            weight.mul_(sqrt(weight.shape[1] / self.config.latent))

    def recipe(self, *, gamma: float | None = None, mixing: float = 0.9, path_weight: float = 2.0) -> Recipe:
        """Appendix B: non-saturating loss, lazy R1 every 16 steps, path length every 4, style mixing 0.9.

        Args:
            gamma: weight of R1; None: 0.0002 pixels / batch, the heuristic of Karras 2020a (arXiv:2006.06676), but at
                least 0.1: below it the generator of small images takes on high-frequency noise.
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
            gamma = max(0.1, 0.0002 * self.config.resolution**2 / recipe.batch)
        return replace(recipe, phases=phases(gamma=gamma, mixing=mixing, path_weight=path_weight))
