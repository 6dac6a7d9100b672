"""What an R3GAN is made of, and the settings that its authors trained with."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from zoo.model import ModelConfig, power_of_two

SLIGHTEST = 0.1      # share of gamma that training ends with


class R3GANConfig(ModelConfig):
    """The authors' CIFAR-10 model by default, and above 32x32 half the channels for each doubling, as they have it."""

    resolution: int = Field(32, ge=8, le=2048, description="height and width of the images, a power of two")
    latent: int = Field(64, ge=1, le=8192, description="numbers in z")
    channel_base: int = Field(24576, ge=8, le=2**20, description="channels times resolution")
    channel_max: int = Field(768, ge=1, le=8192, description="most channels of any stage")
    blocks: int = Field(2, ge=1, le=16, description="residual blocks a stage")
    expansion: int = Field(2, ge=1, le=16, description="channels within a block over those outside")
    group_width: int = Field(16, ge=1, le=1024, description="channels in a group of the 3x3 convolutions")
    embedding: int = Field(64, ge=1, le=8192, description="numbers that a class adds to z")
    gamma: float | None = Field(None, ge=0, le=1e6, description="R1 and R2 at first, a tenth at last; None: by pixels")

    _power_of_two = field_validator("resolution")(power_of_two)

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        for resolution in self.stages:
            inside = self.channels_at(resolution) * self.expansion
            if not inside or inside % min(self.group_width, inside):
                raise ValueError(
                    f"{inside} channels within the blocks at {resolution} pixels do not divide into groups of "
                    f"{self.group_width}"
                )
        return self

    @property
    def stages(self) -> tuple[int, ...]:
        """The resolutions from 4 up to that of the images."""
        return tuple(1 << i for i in range(2, self.resolution.bit_length()))

    def channels_at(self, resolution: int) -> int:
        """Return the channels of the stage of one resolution."""
        return min(self.channel_base // resolution, self.channel_max)

    def groups_at(self, resolution: int) -> int:
        """Return the groups of that stage's 3x3 convolutions."""
        inside = self.channels_at(resolution) * self.expansion
        return inside // min(self.group_width, inside)

    @property
    def penalty(self) -> tuple[float, float]:
        """The weights of R1 and R2 as training begins and ends.

        The authors' grow about with the cube of the resolution: 2 at 64x64 and 150 at 256x256 for faces.
        """
        gamma = 2 * (self.resolution / 64) ** 3 if self.gamma is None else self.gamma
        return gamma, gamma * SLIGHTEST


# What the authors trained, by data set. Batches of 512 images for CIFAR-10, 256 for FFHQ and 4096 for ImageNet.
PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {"resolution": 32, "num_classes": 10, "gamma": 0.05},
    "ffhq64": {"resolution": 64, "gamma": 2.0},
    "ffhq256": {"resolution": 256, "gamma": 150.0},
    "imagenet32": {
        "resolution": 32, "num_classes": 1000, "channel_max": 1536, "channel_base": 49152, "group_width": 32,
        "gamma": 0.5,
    },
    "imagenet64": {
        "resolution": 64, "num_classes": 1000, "channel_max": 1536, "channel_base": 98304, "group_width": 32,
        "gamma": 1.0,
    },
}  # fmt: skip
