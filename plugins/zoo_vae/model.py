"""A variational autoencoder (Kingma and Welling, 2014, arXiv:1312.6114) that sets its own noise level."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from zoo.errors import ConfigError
from zoo.model import Bound, Gaussian, Model, ModelConfig
from zoo.noise import Noise
from zoo.recipe import Phase, Recipe
from zoo_vae.bounds import evidence, importance_weighted
from zoo_vae.loss import AutoencoderLoss, let_go
from zoo_vae.networks import BOTTOM, Decoder, Encoder
from zoo_vae.objectives import LIKELIHOODS, log_normal, normal_divergence
from zoo_vae.prior import Flow

SMALLEST_SCALE = 1e-5      # of the likelihood, below which 8-bit images hold nothing
MEMORY = 0.95              # of the running average of the likelihood's scale


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
    warmup: float = Field(0.1, ge=0, le=1, description="share of each cycle in which the divergence's weight rises")
    cycles: int = Field(1, ge=1, le=1000, description="times that the divergence's weight rises anew")
    samples: int = Field(1, ge=1, le=1000, description="latents of each image; above 1: the importance-weighted bound")
    scale: float | None = Field(None, gt=0, le=1000, description="of the likelihood; None: always the best one")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.resolution < 2 * BOTTOM or not log2(self.resolution).is_integer():
            raise ValueError(f"resolution {self.resolution}: the VAE takes powers of two from {2 * BOTTOM}")
        if self.prior == "flow" and self.latent < 2:
            raise ValueError("latent 1: a flow needs at least 2 numbers; choose prior='normal'")
        if self.samples > 1 and self.free_bits:
            raise ValueError(f"samples {self.samples}: the importance-weighted bound has no free bits; set free_bits=0")
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

    @torch.no_grad()
    def bound(self, images: Tensor, labels: Tensor | list[int] | None = None, *, noise: Noise) -> Bound:
        """Return minus the evidence lower bound of images [N, C, H, W] in [-1, 1], of the averaged networks, in nats.

        The divergence from a normal prior is exact, that from a learned one estimated from the latents that are drawn.

        Raises:
            ConfigError: images of another shape, or labels that do not fit.
        """
        mean, std = self.encode(images)
        rows = self.onehot(labels, len(images))
        rows = None if rows is None else rows.to(self.device)
        drawn = noise.normal(len(images), self.latent_size).to(mean)
        latents = mean + std * drawn
        difference = self.averaged("decoder")(latents, rows).float() - images.to(mean)
        likelihood = LIKELIHOODS[self.config.likelihood]
        distance = likelihood.distance(difference).double().flatten(1).mean(1)
        surprise = likelihood.surprise(distance, self.scale.double()) * difference[0].numel()
        if self.config.prior == "normal":
            divergence = normal_divergence(mean.double(), std.double().log()).sum(1)
        else:
            prior = self.averaged("prior")
            assert isinstance(prior, Flow)
            expected = prior.log_density(latents, rows)
            divergence = log_normal(drawn.double()) - std.double().log().sum(1) - expected.double()
        return Bound(surprise, divergence)

    @property
    def scale(self) -> Tensor:
        """The likelihood's scale, a scalar: the mean absolute deviation (Laplace) or the variance of a number."""
        best = self.decoder.get_buffer("scale")
        return best if self.config.scale is None else torch.full_like(best, self.config.scale)

    def log_prior(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Return log p(latents | labels) in nats [N] for latents [N, latent]."""
        if self.config.prior == "normal":
            return log_normal(latents)
        density: Tensor = self.prior.log_density(latents, labels)
        return density

    def finish(self) -> None:
        """Let a critic go that judged the training: it is no part of an autoencoder."""
        let_go(self)

    def recipe(self) -> Recipe:
        """Return one phase that moves all networks together."""
        networks = ("encoder", "decoder", "prior") if self.config.prior == "flow" else ("encoder", "decoder")
        loss = AutoencoderLoss(evidence if self.config.samples == 1 else importance_weighted)
        phase = Phase("autoencoder", networks, loss, after=follow_scale if self.config.scale is None else None)
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


@torch.no_grad()
def follow_scale(model: Model, watched: Mapping[str, Tensor]) -> None:
    """Move the likelihood's scale towards the error of this step."""
    scale = model.get_submodule("decoder").get_buffer("scale")
    scale.lerp_(watched["error"].to(scale), 1 - MEMORY).clamp_(min=SMALLEST_SCALE)
