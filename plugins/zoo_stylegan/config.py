"""What a StyleGAN2 is made of."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from zoo.model import ModelConfig, power_of_two


class StyleGANConfig(ModelConfig):
    """Table 1's configuration F by default, with half the channels above 32x32 as the paper uses at 256x256."""

    resolution: int = Field(256, ge=8, le=2048, description="height and width of the images, a power of two")
    latent: int = Field(512, ge=1, le=8192, description="numbers in z")
    w: int = Field(512, ge=1, le=8192, description="numbers in a style")
    mapping_layers: int = Field(8, ge=1, le=32, description="fully connected layers from z to w")
    mapping_rate: float = Field(0.01, gt=0, le=1, description="learning rate multiplier of the mapping network")
    channel_base: int = Field(16384, ge=32, le=2**20, description="channels times resolution")
    channel_max: int = Field(512, ge=1, le=8192, description="most channels of any layer")
    synthesis_architecture: Literal["skip", "resnet", "orig"] = Field(
        "skip", description="how the generator joins resolutions"
    )
    discriminator_architecture: Literal["resnet", "orig"] = Field(
        "resnet", description="how the discriminator joins resolutions"
    )
    stddev_group: int = Field(4, ge=1, le=64, description="samples in a group of minibatch standard deviation")
    stddev_channels: int = Field(1, ge=0, le=64, description="its channels; 0: none")
    conv_clamp: float | None = Field(None, gt=0, description="clamp activations to this; 256 keeps float16 finite")

    _power_of_two = field_validator("resolution")(power_of_two)

    @model_validator(mode="after")
    def _has_channels(self) -> Self:
        if self.channel_base < self.resolution:
            raise ValueError(f"channel_base {self.channel_base} leaves no channels at {self.resolution} pixels")
        if self.stddev_channels and self.channels_at(4) % self.stddev_channels:
            raise ValueError(f"stddev_channels {self.stddev_channels} does not divide {self.channels_at(4)} channels")
        return self

    def channels_at(self, resolution: int) -> int:
        """Return the channels of the layers of one resolution."""
        return min(self.channel_base // resolution, self.channel_max)
