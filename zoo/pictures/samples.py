"""What every picture is made of: latents that belong together, and images of them."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, sqrt
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from zoo.errors import ConfigError, WeightsError
from zoo.noise import Noise, key
from zoo.pictures.lettering import lettered

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.model import Model

Labels: TypeAlias = Tensor | list[int] | None
Progress = Callable[[str, int, int], None]      # (which images, how many are done, how many there are)


class Quantiles(Noise):
    """Chance whose uniform numbers are the quantiles of the normal ones that it would draw instead.

    A truncation may draw from another distribution, as BigGAN's does, and by uniform numbers: its latents then have the
    places there that those of psi = 1 have in the normal distribution, and so belong together.
    """

    def uniform(self, n: int, *shape: int) -> Tensor:
        """Return [n, *shape] numbers uniform in [0, 1]."""
        return (1 + torch.erf(self.normal(n, *shape) / sqrt(2))) / 2


def chance(seed: int) -> Noise:
    """Return the chance that `zoo.Model.sample` draws its latents by."""
    return Quantiles(key("sample", seed))


def latents(model: Model, n: int, seed: int, psi: float = 1.0) -> Tensor:
    """Return latents [n, ...]: at psi = 1 those of `zoo.Model.sample`, else the same ones as this psi has them."""
    return model.latent(n, chance(seed), number(psi))


def number(psi: float) -> float:
    """Return psi, whose size `zoo.Model.sample` checks.

    Raises:
        ConfigError: it is no number.
    """
    if not isinstance(psi, int | float):
        raise ConfigError(f"psi={str(psi)[:60]!r} is no number: 1 is no truncation.")
    return psi


def are_normal(model: Model) -> bool:
    """Return whether latents are plain draws from a standard normal distribution, up to a factor."""
    drawn = model.latent(1, Noise(0))
    normal = Noise(0).normal(1, *drawn.shape[1:])
    return float(cosine_similarity(drawn.flatten(), normal.flatten(), dim=0)) > 0.999


def images_of(model: Model, z: Tensor, labels: Labels, *, seed: int, psi: float) -> Tensor:
    """Return the images [N, C, H, W] of latents; calls with the same seed share all further chance, place by place.

    Raises:
        WeightsError: they are not finite.
    """
    images = model.sample(z=z, labels=labels, seed=seed, psi=psi)
    if not bool(images.isfinite().all()):
        raise WeightsError("The model makes NaN or infinity: its training diverged, so take earlier weights.")
    return images.cpu()


def count(name: str, value: int, *, least: int = 1, most: int = 1000) -> int:
    """Return a number of images.

    Raises:
        ConfigError: it is none, or out of range.
    """
    if not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name}={str(value)[:60]} is not possible: give an integer from {least} to {most}.")
    return value


def sample_grid(model: Model, *, n: int = 16, seed: int = 0, psi: float = 1.0) -> Image:
    """Return n samples that nobody picked, of the classes in turn, in a picture that is as square as it gets.

    Raises:
        ConfigError: n is not 1 to 1000.
        WeightsError: the model makes values that are not finite.
    """
    z = latents(model, count("n", n), seed, psi)
    return lettered(images_of(model, z, model.each_class(n), seed=seed, psi=psi), ceil(sqrt(n)))
