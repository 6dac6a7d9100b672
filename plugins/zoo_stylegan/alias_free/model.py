"""StyleGAN3 (Karras et al., 2021, arXiv:2106.12423): details move with the surfaces that they are on."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, isfinite, radians, sin
from typing import Literal, cast

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.model import Model
from zoo.noise import Noise
from zoo.recipe import Recipe
from zoo_stylegan.alias_free.config import StyleGAN3Config
from zoo_stylegan.alias_free.networks import Generator
from zoo_stylegan.alias_free.objectives import phases
from zoo_stylegan.networks import Discriminator
from zoo_stylegan.objectives import trained_by
from zoo_stylegan.truncation import check_styles, keep_styles_of_latents, styled, styles_of

NOISES = ("random", "const", "none")
FARTHEST = 1000.0      # image widths and turns of a transform


class StyleGAN3(Model):
    """StyleGAN3, in the paper's configurations T and R; class-conditional when `num_classes` is given."""

    Config = StyleGAN3Config
    scales = ("generator.*.affine.*",)
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
        return cast("Tensor", generator.synthesis(styled(generator, z, labels, psi, cutoff), transform.to(z)))

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
        return styles_of(self, z, labels, psi=psi, cutoff=cutoff)

    def synthesise(
        self,
        styles: Tensor,
        *,
        translate: Sequence[float] = (0.0, 0.0),
        rotate: float = 0.0,
        seed: int | None = None,
        clamp: bool = True,
    ) -> Tensor:
        """Return the averaged generator's images [N, C, H, W], float32 in [-1, 1], of styles [N, layers + 2, w].

        Gradients reach styles that ask for them (`requires_grad`), so that an image can be looked up in style space.

        Args:
            translate: how far to move what is shown, in image widths to the right and down.
            rotate: how far to turn it about the middle, in degrees, counter-clockwise.
            seed: as StyleGAN2 takes it; StyleGAN3 has no noise, so it makes no difference.
            clamp: False returns the network's raw output.
        """
        generator, transform = self._averaged_generator(), placed(translate, rotate).to(self.device)
        parts = torch.split(self._checked(styles), self.at_once)
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
        check_styles(styles, self._averaged_generator().styles, self.config.w)
        return styles.to(self.device, torch.float32)

    def latent(self, n: int, noise: Noise, psi: float = 1.0) -> Tensor:
        """Return latents [n, latent], standard normal whatever psi: truncation acts on styles, in `generate`."""
        return noise.normal(n, self.latent_size)

    def refit(self) -> None:
        keep_styles_of_latents(self)

    def recipe(self, *, gamma: float | None = None) -> Recipe:
        """Non-saturating loss and lazy R1 every 16 steps; no mixed styles and no path length.

        Args:
            gamma: weight of R1; None: 2 at 256x256 and four times that at twice the resolution, which the authors
                recommend for 32 images a step, but at least 0.1.
        """
        if gamma is None:
            gamma = max(0.1, 2 * (self.config.resolution / 256) ** 2)
        return trained_by(phases(gamma=gamma))


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
