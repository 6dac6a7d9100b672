"""A variational autoencoder (Kingma and Welling, 2014, arXiv:1312.6114) that sets its own noise level."""

from __future__ import annotations

from collections.abc import Mapping
from math import log, log2, pi
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from zoo.errors import ConfigError
from zoo.model import Gaussian, Model, ModelConfig
from zoo.noise import Noise
from zoo.recipe import Batch, Phase, Recipe, Terms
from zoo_vae.networks import BOTTOM, Decoder, Encoder
from zoo_vae.prior import Flow

SMALLEST_SCALE = 1e-5      # of the likelihood, below which 8-bit images hold nothing
MEMORY = 0.95              # of the running average of the likelihood's scale
ACTIVE = 0.01              # variance of a latent's posterior mean above which it counts as used


class VAEConfig(ModelConfig):
    """A convolutional VAE; 4x4 pixels lie between encoder and decoder."""

    width: int = Field(32, ge=1, le=1024, description="channels at full resolution; doubled each time the size halves")
    widest: int = Field(128, ge=1, le=4096, description="most channels anywhere")
    depth: int = Field(1, ge=1, le=16, description="residual blocks at each resolution")
    latent: int = Field(64, ge=1, le=4096, description="size of z")
    likelihood: Literal["laplace", "gaussian"] = Field("laplace", description="of a pixel: absolute or squared error")
    prior: Literal["normal", "flow"] = Field("flow", description="flow: learned, so that samples land where images are")
    prior_width: int = Field(128, ge=1, le=4096, description="hidden units in each coupling of the flow")
    prior_steps: int = Field(8, ge=1, le=64, description="couplings of the flow")
    beta: float = Field(1.0, ge=0, le=1000, description="weight of the divergence: 1 is the evidence lower bound")
    free_bits: float = Field(0.02, ge=0, le=10, description="nats of each latent dimension that cost nothing")
    warmup: float = Field(0.1, ge=0, le=1, description="share of the training in which the divergence's weight rises")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.resolution < 2 * BOTTOM or not log2(self.resolution).is_integer():
            raise ValueError(f"resolution {self.resolution}: the VAE takes powers of two from {2 * BOTTOM}")
        if self.prior == "flow" and self.latent < 2:
            raise ValueError("latent 1: a flow needs at least 2 numbers; choose prior='normal'")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels at 4, 8 ... pixels, up to the resolution."""
        halvings = int(log2(self.resolution // BOTTOM))
        return tuple(min(self.width << i, self.widest) for i in reversed(range(halvings + 1)))


class VAE(Model):
    """Networks: `encoder`, `decoder` and, unless the prior is normal, `prior`.

    z is standard normal [N, latent]; the prior turns it into latents, which the encoder finds and the decoder shows.
    With a normal prior, z and latents are the same.

    The decoder's likelihood is Laplace (or normal) with one scale for all pixels, always the best one: the running mean
    of the absolute (squared) error, as Rybkin et al., 2021, arXiv:2006.13202, section 3, have it for the normal. So
    reconstruction and divergence balance by themselves. The scale is a buffer, updated after each step from the whole
    batch.
    """

    Config: ClassVar[type[ModelConfig]] = VAEConfig
    config: VAEConfig

    def __init__(self, config: VAEConfig):
        super().__init__(config)
        self.latent_size = config.latent
        shape = (config.channels, config.widths, config.depth, config.latent)
        self.encoder = Encoder(*shape)
        self.decoder = Decoder(*shape, config.num_classes)
        if config.prior == "flow":
            self.prior = Flow(config.latent, config.num_classes, config.prior_width, config.prior_steps)

    def generate(self, z: Tensor, labels: Tensor | None, *, psi: float, chance: Noise) -> Tensor:
        """Return the mean images of what the prior makes of z; not limited to [-1, 1]."""
        latents = self.averaged("prior")(z, labels) if self.config.prior == "flow" else z
        images: Tensor = self.averaged("decoder")(latents, labels)
        return images

    @torch.no_grad()
    def encode(self, images: Tensor) -> Gaussian:
        """Return the posterior over latents [N, latent] for images [N, C, H, W] in [-1, 1].

        Raises:
            ConfigError: images of another shape.
        """
        size = [self.config.channels, self.config.resolution, self.config.resolution]
        shape = list(images.shape) if isinstance(images, Tensor) and images.is_floating_point() else None
        if shape is None or len(shape) != 4 or shape[1:] != size:
            given = f"Images of shape {shape}" if shape else "What is no floating-point tensor"
            raise ConfigError(f"{given}: this VAE encodes [N, {str(size)[1:]}.")
        mean, log_std = self.averaged("encoder")(images.to(self.device, torch.float32))
        return Gaussian(mean, log_std.exp())

    @torch.no_grad()
    def decode(
        self, latents: Tensor, labels: Tensor | list[int] | None = None, *, clamp: bool = False
    ) -> Tensor:
        """Return images [N, C, H, W], float32, for latents [N, latent].

        Args:
            latents: for example `encode(images).mean`.
            labels: class indices [N] or rows [N, classes]; left out, a model with classes decodes an even mixture.
            clamp: limit them to [-1, 1]; else the network's raw output.

        Raises:
            ConfigError: latents of another size, or labels that do not fit.
        """
        shape = list(latents.shape) if isinstance(latents, Tensor) and latents.is_floating_point() else None
        if shape is None or shape[1:] != [self.latent_size]:
            given = f"Latents of shape {shape}" if shape else "What is no floating-point tensor"
            raise ConfigError(f"{given}: this VAE decodes [N, {self.latent_size}].")
        classes = self.config.num_classes
        if labels is None and classes:
            labels = torch.full((len(latents), classes), 1 / classes)
        rows = self.onehot(labels, len(latents))
        rows = None if rows is None else rows.to(self.device)
        images: Tensor = self.averaged("decoder")(latents.to(self.device, torch.float32), rows)
        return images.float().clamp(-1, 1) if clamp else images.float()

    def recipe(self) -> Recipe:
        """Return one phase that moves all networks together."""
        networks = tuple(self.networks())
        phase = Phase("autoencoder", networks, negative_elbo, after=follow_scale)
        return Recipe(
            phases=(phase,),
            averaged=networks,
            batch=64,
            lr=1e-3,
            betas=(0.9, 0.999),
            anneal="cosine",
            final_rate=0.05,
            clip_norm=1.0,
        )


def negative_elbo(model: Model, batch: Batch) -> Terms:
    """Return minus the evidence lower bound in nats per number of the image, as reconstruction and divergence.

    Free bits: each latent dimension pays for its divergence, averaged over the batch, only above a floor (Kingma et
    al., 2016, arXiv:1606.04934, eq. 15); with a learned prior the floor holds for the sum.
    """
    assert isinstance(model, VAE)
    config = model.config
    mean, log_std = model.encoder(batch.images)
    noise = batch.noise.normal(len(batch), model.latent_size)
    latents = mean + log_std.exp() * noise
    images = model.decoder(latents, batch.labels).float()
    difference = images - batch.images
    error = (difference.square() if config.likelihood == "gaussian" else difference.abs()).mean()
    if config.prior == "flow":
        posterior = -0.5 * (noise.square() + log(2 * pi)).sum(1) - log_std.sum(1)
        divergence = (posterior - model.prior.log_density(latents, batch.labels)).mean()
        paid = divergence.clamp_min(config.free_bits * model.latent_size)
    else:
        each = (0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std).mean(0)
        divergence, paid = each.sum(), each.clamp_min(config.free_bits).sum()
    weight = config.beta * (min(1.0, batch.progress / config.warmup) if config.warmup else 1.0)
    scale = model.decoder.get_buffer("scale")
    minimise = {
        "reconstruction": _surprise(error, scale, config.likelihood),
        "divergence": weight * paid / difference[0].numel(),
    }
    watch = {
        "kl": divergence,
        "active": (mean.var(0, correction=0) > ACTIVE).float().sum(),
        "error": error,
        "mse": difference.square().mean(),
    }
    return Terms(minimise, {name: value.detach() for name, value in watch.items()})


def _surprise(error: Tensor, scale: Tensor, kind: str) -> Tensor:
    """Return minus the log-likelihood per number, given the mean squared or absolute error and the scale."""
    if kind == "gaussian":                                     # scale is the variance
        return 0.5 * (error / scale + scale.log() + log(2 * pi))
    return error / scale + scale.log() + log(2)                # scale is the mean absolute deviation


@torch.no_grad()
def follow_scale(model: Model, watched: Mapping[str, Tensor]) -> None:
    """Move the likelihood's scale towards the error of this step."""
    scale = model.get_submodule("decoder").get_buffer("scale")
    scale.lerp_(watched["error"].to(scale), 1 - MEMORY).clamp_(min=SMALLEST_SCALE)
