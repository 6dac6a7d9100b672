"""The contract of an architecture: a strict configuration, named networks, latents, samples and a recipe."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from zoo.errors import ConfigError, Unsupported, suggest
from zoo.memory import installed
from zoo.noise import Noise, key
from zoo.recipe import Recipe
from zoo.stages import Growth, enter, resolutions_of

if TYPE_CHECKING:
    from zoo.lowrank import Delta

WIDEST = 1000.0      # psi, either way: beyond, networks overflow
# Images generated at once by `Model.sample`, up to 256x256 pixels; fewer of larger ones, so that their features fit in
# memory. Part of what a seed means, so a constant.
SAMPLE_BATCH, SAMPLE_PIXELS = 64, 256


def power_of_two(value: int) -> int:
    """Return a resolution that is a power of two; for `pydantic.field_validator` in a configuration."""
    if value & (value - 1):
        raise ValueError("must be a power of two")
    return value


class ModelConfig(BaseModel):
    """What config.json may say. Strict and frozen: it comes from strangers, so types, ranges and names are checked."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    resolution: int = Field(32, ge=4, le=4096, description="height and width of the images, pixels")
    channels: int = Field(3, ge=1, le=4, description="1 grey, 3 RGB, 4 RGBA")
    num_classes: int = Field(0, ge=0, le=100_000, description="0: not class-conditional")

    @field_validator("channels")
    @classmethod
    def _an_image_has(cls, value: int) -> int:
        if value == 2:
            raise ValueError("images have 1 (grey), 3 (RGB) or 4 (RGBA) channels")
        return value


class Gaussian(NamedTuple):
    """A diagonal normal distribution over latents: mean and standard deviation, both [N, ...]."""

    mean: Tensor
    std: Tensor


class Bound(NamedTuple):
    """Minus the evidence lower bound of images in nats, as the two parts that it is the sum of: float64 [N] each."""

    reconstruction: Tensor      # -log p(image | latents), of latents drawn from the posterior
    divergence: Tensor          # of the posterior from the prior over latents


class Model(nn.Module):
    """A set of named networks (its child modules) that together make images.

    An architecture sets `Config`, builds its networks in `__init__`, and defines `generate` and `recipe`. What it needs
    besides weights must be a persistent buffer or be computed in `forward`: models are built without memory first.
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig
    scales: ClassVar[tuple[str, ...]] = ()      # shell patterns of parameters that scale and shift the generator's
    #                                             features, besides those of torch's norms
    latent_size: int                       # numbers in one latent vector

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.averages = nn.ModuleDict()    # network name -> its exponential moving average
        self.architecture = ""             # the registry's name, set by zoo.create and zoo.load
        self.origin: dict[str, Any] = {}   # where the weights came from: name, revision, license, sha256, ...
        self.adapted: dict[str, str] = {}  # tensor name -> copied, grown or re-initialised, after adapt=True
        self.absent: tuple[str, ...] = ()  # networks that the weights came without, such as a discriminator
        self.fresh: tuple[str, ...] = ()   # networks that know nothing yet, beside trained ones
        self.growth: Growth | None = None       # when its networks enter which stage of a training: `zoo.growing`
        self.critic: BaseModel | None = None    # what stands in for the architecture's discriminator: `zoo.projected`
        self.delta: Delta | None = None         # what a low-rank fine-tune changed: `zoo.lowrank`

    # What an architecture defines.

    def generate(self, z: Tensor, labels: Tensor | None, *, psi: float, chance: Noise) -> Tensor:
        """Return raw images [N, C, H, W] from latents and one-hot labels, with the averaged networks.

        `chance` is the source of any further randomness. An architecture may take more keywords; `sample` passes them.
        """
        raise NotImplementedError

    def recipe(self) -> Recipe:
        """Return how this model is trained unless told otherwise."""
        raise NotImplementedError

    def latent(self, n: int, noise: Noise, psi: float = 1.0) -> Tensor:
        """Return latents [n, latent_size]: standard normal, scaled by psi."""
        return noise.normal(n, self.latent_size) * psi

    def advance(self, progress: float) -> None:
        """Hear how much of the training is done (0 to 1): networks that are trained in stages enter the one due."""
        if self.growth is not None:
            enter(self, self.growth.at(resolutions_of(self.get_submodule("generator")), progress))

    def refit(self) -> None:
        """Hear that weights were fitted to another configuration: `adapted` says how each tensor fared.

        The place to mend what copying by name gets wrong, such as a layer's scale that depends on its inputs.
        """

    def finish(self) -> None:
        """Hear that training is over, before the weights are saved: the time to settle statistics."""
        enter(self, None)
        self.growth = None

    # What callers use.

    @torch.no_grad()
    def sample(
        self,
        n: int | None = None,
        *,
        seed: int | None = None,
        z: Tensor | None = None,
        labels: Tensor | list[int] | None = None,
        psi: float = 1.0,
        clamp: bool = True,
        **options: Any,
    ) -> Tensor:
        """Return images [N, C, H, W], float32 in [-1, 1], made by the averaged networks.

        Args:
            n: how many; may be left out when `z` or `labels` says it (else 1).
            seed: makes the result repeatable; None draws a new one from torch's global generator.
            z: latents [N, latent_size], used exactly as they are; [N, latent_size, 1, 1] will do.
            labels: class indices [N] or one-hot or soft rows [N, classes]; drawn uniformly when left out.
            psi: truncation, 1 is none; smaller trades variety for typical images.
            clamp: False returns the network's raw output.
            options: further keywords of the architecture's `generate`.
        """
        if not isinstance(psi, int | float) or not abs(psi) <= WIDEST:
            raise ConfigError(f"psi={str(psi)[:60]}: give a number, at most {WIDEST}; 1 is no truncation.")
        if seed is not None and not isinstance(seed, int):
            raise ConfigError(f"seed={str(seed)[:60]!r}: give an integer, or None for a new one each time.")
        if isinstance(z, Tensor) and z.ndim == 4 and z.shape[1:] == (self.latent_size, 1, 1) and self._takes_vectors:
            z = z.flatten(1)                       # as convolutional generators are often fed
        n = self._count(n, z, labels)
        self._check_options(options)
        device = self.device
        chosen = int(torch.randint(2**62, ())) if seed is None else seed
        noise = Noise(key("sample", chosen))
        if z is None:
            z = self.latent(n, noise, psi)
        if labels is None and self.config.num_classes:
            labels = noise.integers(self.config.num_classes, n)
        rows = self.onehot(labels, n)
        at_once = self.at_once
        was_training = self.training
        self.eval()
        try:
            images = [
                self.generate(
                    z[i : i + at_once].to(device, torch.float32),
                    None if rows is None else rows[i : i + at_once].to(device),
                    psi=psi,
                    chance=Noise(key("sample", chosen, i), device=device),
                    **options,
                )
                for i in range(0, n, at_once)
            ]
        finally:
            self.train(was_training)
        whole = torch.cat(images).float()
        return whole.clamp(-1, 1) if clamp else whole

    @torch.no_grad()
    def logits(self, images: Tensor, labels: Tensor | list[int] | None = None) -> Tensor:
        """Return the discriminator's raw output [N, 1] for images [N, C, H, W] in [-1, 1]."""
        discriminator = self.networks().get("discriminator")
        if discriminator is None:
            why = " (these weights came without)" if "discriminator" in self.absent else ""
            raise Unsupported(f"{self._name} has no discriminator{why}, so it gives no logits.")
        size = [self.config.channels, self.config.resolution, self.config.resolution]
        shape = list(images.shape) if isinstance(images, Tensor) and images.is_floating_point() else None
        if shape is None or len(shape) != 4 or shape[1:] != size:
            given = f"Images of shape {shape}" if shape else "What is no floating-point tensor"
            raise ConfigError(f"{given}: this discriminator judges [N, {str(size)[1:]} in [-1, 1].")
        was_training = self.training
        self.eval()
        try:
            rows = self.onehot(labels, len(images))
            rows = None if rows is None else rows.to(self.device)
            scores: Tensor = discriminator(images.to(self.device, torch.float32), rows)
        finally:
            self.train(was_training)
        return scores.float().mean(1, keepdim=True)      # a projected discriminator has several heads

    def encode(self, images: Tensor) -> Gaussian:
        """Return the posterior over latents for images [N, C, H, W] in [-1, 1]."""
        raise Unsupported(f"{self._name} has no encoder; architectures with one: vae.")

    def decode(
        self, latents: Tensor, labels: Tensor | list[int] | None = None, *, clamp: bool = False
    ) -> Tensor:
        """Return images [N, C, H, W] for latents, of these classes; clamp limits them to [-1, 1]."""
        raise Unsupported(f"{self._name} has no decoder; architectures with one: vae.")

    def bound(self, images: Tensor, labels: Tensor | list[int] | None = None, *, noise: Noise) -> Bound:
        """Return minus a lower bound of log p(images | labels), a density of images [N, C, H, W] in [-1, 1].

        Args:
            noise: what latents are drawn with, one for each image.
        """
        kind = type(self).__name__
        raise Unsupported(f"{kind} gives images no likelihood, so none is bounded; architectures that do: vae.")

    def styles(self, z: Tensor, labels: Tensor | list[int] | None = None, *, psi: float = 1.0) -> Tensor:
        """Return what a mapping makes of latents z, truncated, [N, ...]: on a line between two of them lie others."""
        raise Unsupported(f"{self._name} has no mapping to styles; architectures with one: stylegan, stylegan3.")

    def synthesise(self, styles: Tensor, *, seed: int | None = None, clamp: bool = True) -> Tensor:
        """Return images [N, C, H, W] of styles, as `sample` does of latents."""
        raise Unsupported(f"{self._name} has no mapping to styles; architectures with one: stylegan, stylegan3.")

    def onehot(self, labels: Tensor | list[int] | None, n: int) -> Tensor | None:
        """Return labels as float32 rows [n, classes], or None for a model without classes.

        Raises:
            ConfigError: labels for a model without classes, none for one that has them, or out of range.
        """
        classes = self.config.num_classes
        if labels is None:
            if classes:
                raise ConfigError(f"This model has {classes} classes: give labels [N] or [N, {classes}].")
            return None
        rows = _numbers(labels)
        if not classes:
            raise ConfigError("This model has no classes: leave labels out.")
        if rows.ndim == 2 and rows.shape == (n, classes) and bool(rows.isfinite().all()):
            return rows.float()
        if rows.shape != (n,) or rows.is_floating_point():
            raise ConfigError(f"labels of shape {list(rows.shape)}: give class indices [{n}] or rows [{n}, {classes}].")
        lowest, highest = int(rows.min()), int(rows.max())
        if lowest < 0 or highest >= classes:
            raise ConfigError(f"Class indices {lowest} to {highest} are outside 0 to {classes - 1}.")
        return nn.functional.one_hot(rows.long(), classes).float()

    def each_class(self, n: int) -> Tensor | None:
        """Return labels [n] that go through the classes in turn, or None for a model without classes."""
        return torch.arange(n) % self.config.num_classes if self.config.num_classes else None

    # Networks and their averages.

    def networks(self) -> dict[str, nn.Module]:
        """Return name -> network, without the averages."""
        return {name: module for name, module in self.named_children() if name != "averages"}

    def averaged(self, name: str) -> nn.Module:
        """Return the moving average of a network, or the network itself where it has none."""
        return self.averages[name] if name in self.averages else self.get_submodule(name)

    def follow(self, names: tuple[str, ...]) -> Self:
        """Give each named network an average (a copy of it) unless it has one already."""
        from copy import deepcopy

        for name in names:
            if name not in self.averages:
                self.averages[name] = deepcopy(self.get_submodule(name)).requires_grad_(False)
        return self

    def without(self, names: Collection[str]) -> Self:
        """Remove networks that weights come without; `complete` brings them back, untrained.

        Raises:
            ConfigError: one of the names is no network of this model, or nothing would be left.
        """
        networks = self.networks()
        unknown = sorted(set(names) - set(networks))
        if unknown or not set(networks) - set(names):
            possible = ", ".join(networks)
            raise ConfigError(f"{self._name} cannot do without {', '.join(unknown or names)}; networks: {possible}.")
        for name in names:
            delattr(self, name)
        self.absent = tuple(sorted({*self.absent, *names}))
        return self

    def complete(self) -> tuple[str, ...]:
        """Give the model fresh networks for those it lacks, drawn from torch's generator, and return all fresh ones."""
        if self.absent:
            with torch.device(self.device):
                whole = type(self)(self.config)
            missing, self.absent = self.absent, ()      # first: add_module would be told that the name is absent
            for name in missing:
                self.add_module(name, whole.get_submodule(name))
            self.fresh = tuple(sorted({*self.fresh, *missing}))
        return self.fresh

    @property
    def _takes_vectors(self) -> bool:
        return self.latent(1, Noise(0)).ndim == 2

    @property
    def _name(self) -> str:
        return self.architecture or type(self).__name__

    @property
    def at_once(self) -> int:
        """How many images are generated at once."""
        return max(1, int(SAMPLE_BATCH * min(1.0, (SAMPLE_PIXELS / self.config.resolution) ** 2)))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def __getattr__(self, name: str) -> Any:
        # A network that the weights came without is missed by name, wherever an architecture reaches for it.
        absent = self.__dict__.get("absent", ())
        if name in absent:
            raise Unsupported(f"These weights of {self._name} hold no {name}: fine-tuning gives them a fresh one.")
        return super().__getattr__(name)

    def _count(self, n: int | None, z: Tensor | None, labels: Tensor | list[int] | None) -> int:
        if z is not None and not isinstance(z, Tensor):
            raise ConfigError(f"z is a {type(z).__name__}: give a tensor of latents [N, {self.latent_size}].")
        if z is not None and (z.ndim < 2 or not z.is_floating_point() or not bool(z.isfinite().all())):
            given = f"z of shape {list(z.shape)} and type {z.dtype}"
            raise ConfigError(f"{given}: give finite floating-point latents [N, {self.latent_size}].")
        if n is not None and not isinstance(n, int):
            raise ConfigError(f"n={str(n)[:60]!r}: give an integer.")
        if z is not None and z.shape[1:] != (wanted := self.latent(1, Noise(0)).shape[1:]):
            raise ConfigError(f"z of shape {list(z.shape)}: this model takes latents [N, {str(list(wanted))[1:]}.")
        rows = None if labels is None else _numbers(labels)
        counts = {len(given) for given in (z, rows) if given is not None} | ({n} if n is not None else set())
        if len(counts) > 1:
            raise ConfigError(f"n, z and labels disagree on how many images to make: {sorted(counts)}.")
        count = counts.pop() if counts else 1
        if count < 1:
            raise ConfigError(f"Cannot make {count} images: n must be at least 1.")
        size = 4 * (self.latent_size + 2 * self.config.channels * self.config.resolution**2)      # bytes for each
        if count * size > installed():
            most = installed() // size
            raise ConfigError(f"So many images ({str(count)[:30]}) do not fit in memory: make at most {most} at once.")
        return count

    def _check_options(self, options: Mapping[str, Any]) -> None:
        parameters = signature(self.generate).parameters
        anything = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values())
        possible = [name for name in parameters if name not in ("z", "labels", "chance")]
        for name in options:
            if name not in possible and not anything:
                near, all_of = suggest(name, possible), ", ".join(["n", "seed", "z", "labels", "clamp", *possible])
                raise ConfigError(f"{self._name} samples without an option {name!r}.{near} Possible: {all_of}.")


def _numbers(labels: Tensor | list[int]) -> Tensor:
    try:
        rows = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:      # words, ragged rows, numbers beyond 64 bits
        raise ConfigError("Labels are class indices [N] or rows [N, classes] of numbers.") from error
    if not rows.ndim:
        raise ConfigError("One label alone has no place: give a list of class indices [N].")
    return rows
