"""StyleGAN2 (Karras et al., 2020, arXiv:1912.04958): a mapped style modulates every layer of the synthesis."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.model import Model
from zoo.noise import Noise, key
from zoo.recipe import Recipe
from zoo_stylegan.config import StyleGANConfig
from zoo_stylegan.networks import Discriminator, Generator
from zoo_stylegan.objectives import BATCH, phases, trained_by
from zoo_stylegan.truncation import check_styles, keep_styles_of_latents, styled, styles_of


class StyleGAN(Model):
    """StyleGAN2; class-conditional when `num_classes` is given."""

    Config = StyleGANConfig
    scales = ("generator.*.affine.*",)
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
        return self._drawn(styled(self._averaged_generator(), z, labels, psi, cutoff), noise, chance)

    @torch.no_grad()
    def styles(
        self,
        z: Tensor,
        labels: Tensor | list[int] | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Return styles [N, layers, w] of the averaged generator, one for each layer, to be mixed, moved or kept.

        Args:
            z: latents [N, latent].
            labels: class indices [N] or rows [N, classes]; a conditional model needs them.
            psi: styles are pulled towards the average style, w = average + psi (w - average).
            cutoff: how many layers psi reaches, from 4x4 up; None: all.

        Example: the coarse layers of one image with the fine ones of another::

            styles = model.styles(z)
            mixed = torch.cat([styles[:1, :4], styles[1:2, 4:]], dim=1)
            image = model.synthesise(mixed)
        """
        return styles_of(self, z, labels, psi=psi, cutoff=cutoff)

    def synthesise(
        self,
        styles: Tensor,
        *,
        noise: Literal["random", "const", "none"] = "random",
        seed: int | None = None,
        clamp: bool = True,
    ) -> Tensor:
        """Return the averaged generator's images [N, C, H, W], float32 in [-1, 1], of styles [N, layers, w].

        Gradients reach styles that ask for them (`requires_grad`), so that an image can be looked up in style space.

        Args:
            noise: fresh noise, each layer's stored noise, or none.
            seed: makes fresh noise repeatable; None draws a new one from torch's global generator.
            clamp: False returns the network's raw output.
        """
        check_styles(styles, self._averaged_generator().styles, self.config.w)
        if seed is not None and not isinstance(seed, int):
            raise ConfigError(f"seed={str(seed)[:60]!r}: give an integer, or None for a new one each time.")
        chosen = int(torch.randint(2**62, ())) if seed is None else seed
        parts = torch.split(styles.to(self.device, torch.float32), self.at_once)
        with torch.set_grad_enabled(torch.is_grad_enabled() and styles.requires_grad):
            images = torch.cat(
                [
                    self._drawn(part, noise, Noise(key("synthesise", chosen, i), device=self.device))
                    for i, part in enumerate(parts)
                ]
            ).float()
        return images.clamp(-1, 1) if clamp else images

    def _averaged_generator(self) -> Generator:
        generator = self.averaged("generator")
        assert isinstance(generator, Generator)
        return generator

    def _drawn(self, styles: Tensor, noise: str, chance: Noise) -> Tensor:
        """Return raw images of styles [N, layers, w]."""
        generator = self._averaged_generator()
        sources: dict[str, Noise | None] = {"random": chance, "none": None}
        if noise == "const":
            return generator.synthesis(styles, generator.constant_noise())
        if not isinstance(noise, str) or noise not in sources:
            raise ConfigError(f"noise={str(noise)[:60]!r}: possible are random, const, none.")
        return generator.synthesis(styles, generator.random_noise(len(styles), sources[noise]))

    def latent(self, n: int, noise: Noise, psi: float = 1.0) -> Tensor:
        """Return latents [n, latent], standard normal whatever psi: truncation acts on styles, in `generate`."""
        return noise.normal(n, self.latent_size)

    def refit(self) -> None:
        keep_styles_of_latents(self)

    def recipe(self, *, gamma: float | None = None, mixing: float = 0.9, path_weight: float = 2.0) -> Recipe:
        """Appendix B: non-saturating loss, lazy R1 every 16 steps, path length every 4, style mixing 0.9.

        Args:
            gamma: weight of R1; None: 0.0002 pixels / batch, the heuristic of Karras 2020a (arXiv:2006.06676), but at
                least 0.1: below it the generator of small images takes on high-frequency noise.
            mixing: probability of style mixing; that paper trains small images without it.
            path_weight: weight of path length regularisation; 0, as for small images there, leaves it out.
        """
        if gamma is None:
            gamma = max(0.1, 0.0002 * self.config.resolution**2 / BATCH)
        return trained_by(phases(gamma=gamma, mixing=mixing, path_weight=path_weight))
