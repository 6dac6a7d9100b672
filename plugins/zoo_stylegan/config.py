"""What a StyleGAN2 is made of."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from zoo.model import ModelConfig, power_of_two

BINOMIAL = (1.0, 3.0, 3.0, 1.0)      # the low-pass filter of all published StyleGAN2


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value      # JSON knows lists only


Widths = Annotated[
    tuple[Annotated[int, Field(ge=1, le=8192)], ...], BeforeValidator(_as_tuple), Field(min_length=2, max_length=10)
]
Taps = Annotated[
    tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...], BeforeValidator(_as_tuple), Field(min_length=2, max_length=16)
]


class DiscriminatorConfig(ModelConfig):
    """What StyleGAN2's discriminator is made of, which judges for StyleGAN3 too.

    What is None here is as in the generator.
    """

    resolution: int = Field(256, ge=8, le=2048, description="height and width of the images, a power of two")
    channel_base: int = Field(16384, ge=32, le=2**20, description="channels times resolution")
    channel_max: int = Field(512, ge=1, le=8192, description="most channels of any layer")
    mapping_layers: int = Field(8, ge=1, le=32, description="fully connected layers from z to w")
    mapping_rate: float = Field(0.01, gt=0, le=1, description="learning rate multiplier of the mapping network")
    conv_clamp: float | None = Field(None, gt=0, description="clamp activations to this; 256 keeps float16 finite")
    resample_filter: Taps = Field(BINOMIAL, description="low-pass filter, an even number of taps, symmetric")
    discriminator_architecture: Literal["skip", "resnet", "orig"] = Field(
        "resnet", description="how the discriminator joins resolutions"
    )
    discriminator_channel_base: int | None = Field(None, ge=32, le=2**20, description="its own channel_base")
    discriminator_channel_max: int | None = Field(None, ge=1, le=8192, description="its own channel_max")
    discriminator_widths: Widths | None = Field(None, description="its channels at 4x4, 8x8, ... instead of those")
    discriminator_clamp: float | None = Field(None, ge=0, description="its own conv_clamp; 0: none")
    discriminator_mapping_layers: int | None = Field(None, ge=0, le=32, description="layers that map its labels")
    discriminator_mapping_rate: float | None = Field(None, gt=0, le=1, description="their learning rate multiplier")
    discriminator_mapping_width: int | None = Field(
        None, ge=1, le=8192, description="numbers between those layers; None: as many as leave the last"
    )
    discriminator_embed: int | None = Field(
        None, ge=1, le=8192, description="numbers that embed a label there; None: as many as leave the last"
    )
    discriminator_label: int | None = Field(
        None, ge=1, le=8192, description="numbers in a label's direction; None: its channels at 4x4"
    )
    stddev_group: int | None = Field(
        4, ge=1, le=1024, description="samples in a group of minibatch standard deviation; None: the whole batch"
    )
    stddev_channels: int = Field(1, ge=0, le=64, description="its channels; 0: none")

    _power_of_two = field_validator("resolution")(power_of_two)

    @field_validator("resample_filter")
    @classmethod
    def _is_symmetric(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) % 2 or value != value[::-1] or not sum(value):
            raise ValueError("must be an even number of symmetric taps whose sum is not zero")
        return value

    @model_validator(mode="after")
    def _discriminator_has_channels(self) -> Self:
        self.check_channels("discriminator_", self.discriminator_widths, self.discriminator_channel_base)
        width = self.discriminator_channels_at(4)
        if self.stddev_channels and width % self.stddev_channels:
            raise ValueError(f"stddev_channels {self.stddev_channels} does not divide {width} channels")
        if self.discriminator_mapping_layers == 0 and self.discriminator_embed not in (None, self.label_size):
            raise ValueError("discriminator_mapping_layers 0 needs discriminator_embed equal to discriminator_label")
        return self

    def check_channels(self, prefix: str, widths: Sequence[int] | None, base: int | None) -> None:
        """Raise ValueError if some resolution has no channels."""
        sizes = int(log2(self.resolution)) - 1
        if widths is not None and len(widths) < sizes:
            raise ValueError(f"{prefix}widths gives {len(widths)} numbers, {self.resolution} pixels need {sizes}")
        base = self.channel_base if base is None else base
        if widths is None and base < self.resolution:
            raise ValueError(f"{prefix}channel_base {base} leaves no channels at {self.resolution} pixels")

    def discriminator_channels_at(self, resolution: int) -> int:
        """Return the channels of the discriminator's layers of one resolution."""
        if self.discriminator_widths is not None:
            return self.discriminator_widths[int(log2(resolution)) - 2]
        base = self.discriminator_channel_base or self.channel_base
        return min(base // resolution, self.discriminator_channel_max or self.channel_max)

    @property
    def judging_clamp(self) -> float | None:
        """The clamp of the discriminator's activations."""
        own = self.discriminator_clamp
        return self.conv_clamp if own is None else own or None

    @property
    def label_size(self) -> int:
        """How many numbers the direction of a label has, along which the discriminator scores."""
        return self.discriminator_label or self.discriminator_channels_at(4)


class StyleGANConfig(DiscriminatorConfig):
    """Table 1's configuration F by default, with half the channels above 32x32 as the paper uses at 256x256."""

    latent: int = Field(512, ge=1, le=8192, description="numbers in z")
    w: int = Field(512, ge=1, le=8192, description="numbers in a style")
    mapping_width: int | None = Field(None, ge=1, le=8192, description="numbers between its layers; None: as in w")
    embed: int | None = Field(None, ge=1, le=8192, description="numbers that embed a label; None: as in w")
    widths: Widths | None = Field(None, description="the generator's channels at 4x4, 8x8, ... instead of channel_base")
    synthesis_architecture: Literal["skip", "resnet", "orig"] = Field(
        "skip", description="how the generator joins resolutions"
    )

    @model_validator(mode="after")
    def _generator_has_channels(self) -> Self:
        self.check_channels("", self.widths, None)
        return self

    def channels_at(self, resolution: int) -> int:
        """Return the channels of the generator's layers of one resolution."""
        if self.widths is not None:
            return self.widths[int(log2(resolution)) - 2]
        return min(self.channel_base // resolution, self.channel_max)
