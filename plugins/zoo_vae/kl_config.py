"""What an AutoencoderKL is made of."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from zoo.model import ModelConfig

Width = Annotated[int, Field(ge=1, le=4096)]
Level = Annotated[int, Field(ge=0, le=7)]
Statistic = Annotated[float, Field(ge=-1000, le=1000)]
Spread = Annotated[float, Field(gt=0, le=1000)]


class KLConfig(ModelConfig):
    """The autoencoder of Stable Diffusion by default; `resolution` is what is sampled and trained at, not a limit."""

    variant: Literal["kl"] = Field("kl", description="AutoencoderKL: latents are small images")
    resolution: int = Field(256, ge=4, le=4096, description="height and width of the images, pixels")
    num_classes: Literal[0] = Field(0, description="it has no classes")
    latent_channels: int = Field(4, ge=1, le=1024, description="channels of the latents")
    widths: tuple[Width, ...] = Field(
        (128, 256, 512, 512), min_length=1, max_length=8, strict=False,
        description="channels of each level, each half the size of the one before; the last has the latents'",
    )  # fmt: skip
    depth: int = Field(2, ge=1, le=16, description="residual blocks at each level; one more in the decoder")
    norm_groups: int = Field(32, ge=1, le=4096, description="groups of each group norm")
    mid_attention: bool = Field(True, description="attention between the two blocks at the bottom")
    attention_levels: tuple[Level, ...] = Field(
        (), max_length=8, strict=False, description="levels, from 0 at full size, with attention after each block"
    )
    quant_conv: bool = Field(True, description="a 1x1 convolution after the encoder")
    post_quant_conv: bool = Field(True, description="a 1x1 convolution before the decoder")
    scaling_factor: float = Field(0.18215, gt=0, le=1000, description="brings latents to unit variance")
    shift_factor: float = Field(0.0, ge=-1000, le=1000, description="subtracted from latents before they are scaled")
    latent_mean: tuple[Statistic, ...] = Field((), strict=False, description="subtracted from each latent channel")
    latent_std: tuple[Spread, ...] = Field((), strict=False, description="each latent channel is divided by it")
    kl_weight: float = Field(1e-6, ge=0, le=1000, description="weight of the divergence, beside the summed error")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.resolution % self.factor:
            raise ValueError(f"resolution {self.resolution}: {len(self.widths)} levels take multiples of {self.factor}")
        if any(width % self.norm_groups for width in self.widths):
            raise ValueError(
                f"norm_groups {self.norm_groups} does not divide all widths {self.widths}: give the norm_groups that "
                "the weights were trained with, such as norm_groups=4"
            )
        if any(level >= len(self.widths) for level in self.attention_levels):
            raise ValueError(f"attention_levels {self.attention_levels}: the last level is {len(self.widths) - 1}")
        for name, values in (("latent_mean", self.latent_mean), ("latent_std", self.latent_std)):
            if len(values) not in (0, self.latent_channels):
                raise ValueError(f"{name} has {len(values)} numbers for {self.latent_channels} latent channels")
        return self

    @property
    def factor(self) -> int:
        """How many times smaller than the images the latents are, along each side."""
        return 1 << (len(self.widths) - 1)
