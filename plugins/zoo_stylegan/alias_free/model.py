"""StyleGAN3 (Karras et al., 2021, arXiv:2106.12423): details move with the surfaces that they are on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import cos, isfinite, radians, sin, sqrt
from typing import Literal, cast

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.model import SAMPLE_BATCH, WIDEST, Model
from zoo.noise import Noise
from zoo.recipe import Recipe
from zoo_stylegan.alias_free.config import StyleGAN3Config
from zoo_stylegan.alias_free.networks import Generator
from zoo_stylegan.alias_free.objectives import phases
from zoo_stylegan.networks import Discriminator

NOISES = ("random", "const", "none")
FARTHEST = 1000.0      # image widths and turns of a transform


class StyleGAN3(Model):
    """StyleGAN3, in the paper's configurations T and R; class-conditional when `num_classes` is given."""

    Config = StyleGAN3Config
    config: StyleGAN3Config

    def __init__(self, config: StyleGAN3Config):
        super().__init__(config)
        self.latent_size = config.latent
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    def generate(
        self,
        z: Tensor,
        labels: Tensor | None,
        *,
        psi: float = 1.0,
        chance: Noise,
        cutoff: int | None = None,
        translate: Sequence[float] = (0.0, 0.0),
        rotate: float = 0.0,
        noise: Literal["random", "const", "none"] = "none",
    ) -> Tensor:
        """Return raw images.

        Args:
            psi: styles are pulled towards the average style, w = average + psi (w - average).
            cutoff: how many layers psi reaches, from the input on; None: all.
            translate: how far to move what is shown, in image widths to the right and down.
            rotate: how far to turn it about the middle, in degrees, counter-clockwise; R alone follows it well.
            noise: as StyleGAN2 takes it; StyleGAN3 has no noise, so it makes no difference.
        """
        if not isinstance(noise, str) or noise not in NOISES:
            raise ConfigError(f"noise={str(noise)[:60]!r}: possible are {', '.join(NOISES)}; here they do the same.")
        transform = placed(translate, rotate)
        generator = self._averaged_generator()
        return cast("Tensor", generator.synthesis(self._styled(z, labels, psi, cutoff), transform.to(z)))

    @torch.no_grad()
    def styles(
        self,
        z: Tensor,
        labels: Tensor | list[int] | None = None,
        *,
        psi: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Return styles [N, layers + 2, w] of the averaged generator, one for the input and each layer.

        Args:
            z: latents [N, latent].
            labels: class indices [N] or rows [N, classes]; a conditional model needs them.
            psi: styles are pulled towards the average style, w = average + psi (w - average).
            cutoff: how many layers psi reaches, from the input on; None: all.
        """
        if not isinstance(psi, int | float) or not abs(psi) <= WIDEST:
            raise ConfigError(f"psi={str(psi)[:60]}: give a number, at most {WIDEST}; 1 is no truncation.")
        if not isinstance(z, Tensor) or z.ndim != 2 or z.shape[1] != self.latent_size or not z.is_floating_point():
            raise ConfigError(f"z must be a floating-point tensor of latents [N, {self.latent_size}].")
        rows = self.onehot(labels, len(z))
        rows = None if rows is None else rows.to(self.device)
        return self._styled(z.to(self.device, torch.float32), rows, psi, cutoff).contiguous()

    def synthesise(
        self,
        styles: Tensor,
        *,
        translate: Sequence[float] = (0.0, 0.0),
        rotate: float = 0.0,
        clamp: bool = True,
    ) -> Tensor:
        """Return the averaged generator's images [N, C, H, W], float32 in [-1, 1], of styles [N, layers + 2, w].

        Gradients reach styles that ask for them (`requires_grad`), so that an image can be looked up in style space.

        Args:
            translate: how far to move what is shown, in image widths to the right and down.
            rotate: how far to turn it about the middle, in degrees, counter-clockwise.
            clamp: False returns the network's raw output.
        """
        generator, transform = self._averaged_generator(), placed(translate, rotate).to(self.device)
        parts = torch.split(self._checked(styles), SAMPLE_BATCH)
        with torch.set_grad_enabled(torch.is_grad_enabled() and styles.requires_grad):
            images = torch.cat([generator.synthesis(part, transform) for part in parts]).float()
        return images.clamp(-1, 1) if clamp else images

    @torch.no_grad()
    def synthesis_input(
        self, styles: Tensor, *, translate: Sequence[float] = (0.0, 0.0), rotate: float = 0.0
    ) -> Tensor:
        """Return the Fourier features [N, channels, size, size] from which the averaged generator draws.

        Args:
            styles: [N, layers + 2, w], such as `styles` returns; the first of a sample places its features.
            translate: how far to move what is shown, in image widths to the right and down.
            rotate: how far to turn it about the middle, in degrees, counter-clockwise.
        """
        generator, transform = self._averaged_generator(), placed(translate, rotate).to(self.device)
        return cast("Tensor", generator.synthesis.input(self._checked(styles)[:, 0], transform))

    def _averaged_generator(self) -> Generator:
        generator = self.averaged("generator")
        assert isinstance(generator, Generator)
        return generator

    def _checked(self, styles: Tensor) -> Tensor:
        count = self._averaged_generator().styles
        if not isinstance(styles, Tensor) or styles.ndim != 3 or styles.shape[1:] != (count, self.config.w):
            raise ConfigError(f"styles must be a tensor [N, {count}, {self.config.w}], such as `styles` returns.")
        return styles.to(self.device, torch.float32)

    def _styled(self, z: Tensor, labels: Tensor | None, psi: float, cutoff: int | None) -> Tensor:
        """Return styles [N, layers + 2, w] from latents and one-hot labels."""
        if cutoff is not None and not isinstance(cutoff, int):
            raise ConfigError(f"cutoff={str(cutoff)[:60]!r}: give the number of layers that psi reaches, or None.")
        generator = self._averaged_generator()
        w = generator.broadcast(generator.mapping(z, labels))
        if psi == 1:
            return w
        reached = torch.arange(generator.styles, device=w.device) < (generator.styles if cutoff is None else cutoff)
        return torch.where(reached[:, None], generator.w_average + psi * (w - generator.w_average), w)

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

    def recipe(self, *, gamma: float | None = None) -> Recipe:
        """Non-saturating loss and lazy R1 every 16 steps; no mixed styles and no path length.

        Args:
            gamma: weight of R1; None: 2 at 256x256 and four times that at twice the resolution, which the authors
                recommend for 32 images a step, but at least 0.1.
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
            gamma = max(0.1, 2 * (self.config.resolution / 256) ** 2)
        return replace(recipe, phases=phases(gamma=gamma))


def placed(translate: Sequence[float], rotate: float) -> Tensor:
    """Return [3, 3]: from a place in the image to what is shown there, that being moved and turned.

    Places are (right, down) of the middle, in image widths; what is shown is turned first, then moved.

    Raises:
        ConfigError: not two numbers and a number.
    """
    numbers = [*translate, rotate] if isinstance(translate, Sequence) and len(translate) == 2 else [None]
    for number in numbers:
        if not isinstance(number, int | float) or not isfinite(number) or abs(number) > 360 * FARTHEST:
            raise ConfigError(
                f"translate={str(translate)[:60]}, rotate={str(rotate)[:60]}: give two numbers, image widths to the "
                "right and down, and one, degrees counter-clockwise."
            )
    right, down = translate
    cosine, sine = cos(radians(rotate)), sin(radians(rotate))
    turn = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=torch.float64, device="cpu")
    move = torch.tensor([[1, 0, -right], [0, 1, -down], [0, 0, 1]], dtype=torch.float64, device="cpu")
    return (turn @ move).float()
