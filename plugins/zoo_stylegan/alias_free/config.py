"""What a StyleGAN3 is made of."""

from __future__ import annotations

from itertools import pairwise
from typing import Self

from pydantic import Field, model_validator

from zoo_stylegan.alias_free.geometry import Signal, progression
from zoo_stylegan.config import DiscriminatorConfig

STEEPEST = 8      # times the sampling rate from one layer to the next; filters are that much longer


class StyleGAN3Config(DiscriminatorConfig):
    """The paper's configuration T by default.

    R, which is equivariant to rotation too, has conv_kernel 1, radial_filters, and twice channel_base and channel_max
    for the generator (with discriminator_channel_base 32768 and discriminator_channel_max 512, which stay).
    """

    channel_base: int = Field(32768, ge=32, le=2**20, description="channels of a layer, times twice its cutoff")
    mapping_layers: int = Field(2, ge=1, le=32, description="fully connected layers from z to w")
    discriminator_mapping_layers: int | None = Field(8, ge=0, le=32, description="layers that map its labels")
    conv_clamp: float | None = Field(256.0, gt=0, description="clamp activations to this; 256 keeps float16 finite")
    latent: int = Field(512, ge=1, le=8192, description="numbers in z")
    w: int = Field(512, ge=1, le=8192, description="numbers in a style")
    layers: int = Field(14, ge=2, le=64, description="layers of the synthesis, without the last one, to colours")
    critical_layers: int = Field(2, ge=1, le=63, description="how many of them, the last, sample critically")
    first_cutoff: float = Field(2.0, ge=0.5, le=1024, description="cutoff of the first layer, cycles per image")
    first_stopband: float = Field(2**2.1, ge=0.5, le=4096, description="where its stopband begins at least")
    last_stopband: float = Field(2**0.3, gt=1, le=8, description="the same of the last layer, times its cutoff")
    margin: int = Field(10, ge=0, le=64, description="pixels beyond the image on each side, while inside")
    conv_kernel: int = Field(3, ge=1, le=7, description="size of the convolutions: 3 for T, 1 for R")
    filter_taps: int = Field(6, ge=2, le=16, description="length of the filters, pixels of the lower resolution")
    lrelu_upsampling: int = Field(2, ge=1, le=4, description="resolution at which activations work, times the layer's")
    radial_filters: bool = Field(False, description="down-sample with radially symmetric filters, for R")
    output_scale: float = Field(0.25, gt=0, le=1000, description="images are the last layer's output times this")
    magnitude_ema_beta: float = Field(
        0.999, ge=0, lt=1, description="what the running mean squares of layer inputs keep of themselves at each step"
    )

    @model_validator(mode="after")
    def _signals_exist(self) -> Self:
        if self.critical_layers >= self.layers:
            raise ValueError(f"critical_layers {self.critical_layers} must be fewer than layers {self.layers}")
        if not self.first_cutoff < self.first_stopband:
            raise ValueError(f"first_stopband {self.first_stopband} must be above first_cutoff {self.first_cutoff}")
        if not self.first_cutoff < self.resolution / 2:
            raise ValueError(f"first_cutoff {self.first_cutoff} must be below {self.resolution / 2}, half the pixels")
        if self.conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel {self.conv_kernel} must be odd")
        if not self.signals()[-2].channels:
            raise ValueError(f"channel_base {self.channel_base} leaves no channels at {self.resolution} pixels")
        rates = [signal.rate for signal in self.signals()]
        if any(max(pair) > STEEPEST * min(pair) for pair in pairwise(rates)):
            raise ValueError(f"layers {self.layers} are too few for sampling rates {rates}: at most x{STEEPEST} each")
        return self

    def signals(self) -> list[Signal]:
        """Return what leaves each layer, from the first to the one of colours."""
        return progression(
            resolution=self.resolution, channels=self.channels, layers=self.layers, critical=self.critical_layers,
            first_cutoff=self.first_cutoff, first_stopband=self.first_stopband, last_stopband=self.last_stopband,
            margin=self.margin, channel_base=self.channel_base, channel_max=self.channel_max,
        )  # fmt: skip
