"""TAESD (O. B. Bohan, 2023, github.com/madebyollin/taesd): a tiny autoencoder for the latents of a diffusion model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from zoo.model import Gaussian, Model, ModelConfig
from zoo.noise import Noise
from zoo.recipe import Batch, Phase, Recipe, Terms
from zoo_vae.loss import AutoencoderLoss, Reconstruction, let_go
from zoo_vae.spatial import checked_images, checked_latents, in_parts
from zoo_vae.tiny_networks import Decoder, Encoder

Count = Annotated[int, Field(ge=0, le=64)]


class TinyConfig(ModelConfig):
    """The autoencoder for Stable Diffusion by default; `resolution` is what is sampled and trained at, not a limit."""

    variant: Literal["tiny"] = Field("tiny", description="TAESD: latents are small images")
    resolution: int = Field(256, ge=4, le=4096, description="height and width of the images, pixels")
    num_classes: Literal[0] = Field(0, description="it has no classes")
    latent_channels: int = Field(4, ge=1, le=1024, description="channels of the latents")
    encoder_width: int = Field(64, ge=1, le=4096, description="channels of the encoder")
    decoder_width: int = Field(64, ge=1, le=4096, description="channels of the decoder")
    encoder_blocks: tuple[Count, ...] = Field(
        (1, 3, 3, 3), min_length=1, max_length=8, strict=False, description="blocks of each stage, from the image on"
    )
    decoder_blocks: tuple[Count, ...] = Field(
        (3, 3, 3, 1), min_length=1, max_length=8, strict=False, description="blocks of each stage, from the latents on"
    )
    mixing: bool = Field(False, description="blocks at the latents' size mix channels first, as for FLUX.2")
    latent_magnitude: float = Field(3.0, gt=0, le=1000, description="of latents that `scale_latents` takes to 0 or 1")
    latent_shift: float = Field(0.5, ge=-1000, le=1000, description="where `scale_latents` takes zero")
    scaling_factor: float = Field(1.0, gt=0, le=1000, description="brings latents to unit variance")
    shift_factor: float = Field(0.0, ge=-1000, le=1000, description="subtracted from latents before they are scaled")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.encoder_blocks) != len(self.decoder_blocks):
            raise ValueError(
                f"encoder_blocks has {len(self.encoder_blocks)} stages, decoder_blocks {len(self.decoder_blocks)}"
            )
        if self.resolution % self.factor:
            raise ValueError(
                f"resolution {self.resolution}: {len(self.encoder_blocks)} stages take multiples of {self.factor}"
            )
        return self

    @property
    def factor(self) -> int:
        """How many times smaller than the images the latents are, along each side."""
        return 1 << (len(self.encoder_blocks) - 1)


class TinyAutoencoder(Model):
    """Networks: `encoder` and `decoder`.

    Latents are small images [N, latent_channels, H / factor, W / factor], those of a diffusion model: of about unit
    variance. Both networks take any size that the factor divides. The encoder is certain: it gives no variance.
    """

    Config: ClassVar[type[ModelConfig]] = TinyConfig
    config: TinyConfig

    def __init__(self, config: TinyConfig):
        super().__init__(config)
        side = config.resolution // config.factor
        self.latent_shape = (config.latent_channels, side, side)
        self.latent_size = config.latent_channels * side * side
        shape = (config.channels, config.latent_channels)
        self.encoder = Encoder(*shape, config.encoder_width, config.encoder_blocks, config.mixing)
        self.decoder = Decoder(*shape, config.decoder_width, config.decoder_blocks, config.mixing)

    def latent(self, n: int, noise: Noise, psi: float = 1.0) -> Tensor:
        """Return latents [n, latent_channels, h, w]: standard normal, times psi."""
        return noise.normal(n, *self.latent_shape) * psi

    def generate(self, z: Tensor, labels: Tensor | None, *, psi: float, chance: Noise) -> Tensor:
        """Return raw images for a diffusion model's latents z [N, latent_channels, h, w].

        Normal z give textures: good samples need a prior over latents, such as the diffusion model that these are of;
        give its output as z.
        """
        return self._show(z / self.config.scaling_factor + self.config.shift_factor)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Gaussian:
        """Return latents as mean, with no spread, for images [N, C, H, W] in [-1, 1]; H, W are multiples of the factor.

        Raises:
            ConfigError: images of another shape.
        """
        images = checked_images(images, self.config.channels, self.config.factor).to(self.device, torch.float32)
        mean = in_parts(self.averaged("encoder"), images, images[0, 0].numel()).float()
        return Gaussian(mean, torch.zeros_like(mean))

    @torch.no_grad()
    def decode(
        self, latents: Tensor, labels: Tensor | list[int] | None = None, *, clamp: bool = False
    ) -> Tensor:
        """Return images [N, C, h * factor, w * factor], float32, for latents [N, latent_channels, h, w].

        Args:
            latents: for example `encode(images).mean`; they are not scaled.
            labels: none; this autoencoder has no classes.
            clamp: limit them to [-1, 1]; else the network's raw output.

        Raises:
            ConfigError: latents of another shape, or labels.
        """
        latents = checked_latents(latents, self.config.latent_channels).to(self.device, torch.float32)
        self.onehot(labels, len(latents))
        images = self._show(latents).float()
        return images.clamp(-1, 1) if clamp else images

    def scale_latents(self, latents: Tensor) -> Tensor:
        """Return latents as numbers in [0, 1], to be stored as an image; what lies beyond the magnitude is cut off."""
        checked_latents(latents, self.config.latent_channels)
        return (latents / (2 * self.config.latent_magnitude) + self.config.latent_shift).clamp(0, 1)

    def unscale_latents(self, scaled: Tensor) -> Tensor:
        """Return latents as `decode` takes them, from numbers in [0, 1]: the inverse of `scale_latents`."""
        checked_latents(scaled, self.config.latent_channels)
        return (scaled - self.config.latent_shift) * (2 * self.config.latent_magnitude)

    def finish(self) -> None:
        """Let a critic go that judged the training: it is no part of an autoencoder."""
        let_go(self)

    def recipe(self) -> Recipe:
        """Return one phase that moves encoder and decoder together.

        TAESD itself learned from another autoencoder's latents, and with a discriminator; this trains one on its own.
        The additions `perceptual` and `patch_critic` give it judges.
        """
        networks = ("encoder", "decoder")
        phase = Phase("autoencoder", networks, AutoencoderLoss(reconstruct))
        return Recipe(phases=(phase,), averaged=networks, batch=16, lr=5e-4, betas=(0.9, 0.99), clip_norm=1.0)

    def _show(self, latents: Tensor) -> Tensor:
        return in_parts(self.averaged("decoder"), latents, latents[0, 0].numel() * self.config.factor**2)


def reconstruct(model: Model, batch: Batch) -> Reconstruction:
    """Return the absolute error of the images."""
    assert isinstance(model, TinyAutoencoder)
    images = model.decoder(model.encoder(batch.images)).float()
    difference = images - batch.images
    terms = Terms({"reconstruction": difference.abs().mean()}, {"mse": difference.detach().square().mean()})
    return Reconstruction(images, terms, 1.0)
