"""AutoencoderKL (Rombach et al., 2022, arXiv:2112.10752): the autoencoder of latent diffusion models."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from zoo.model import Gaussian, Model, ModelConfig
from zoo.noise import Noise
from zoo.recipe import Batch, Phase, Recipe, Terms
from zoo_vae.kl_config import KLConfig
from zoo_vae.kl_networks import Decoder, Encoder, posterior
from zoo_vae.loss import AutoencoderLoss, Reconstruction, let_go
from zoo_vae.objectives import active, informative, normal_divergence
from zoo_vae.spatial import checked_images, checked_latents, in_parts


class AutoencoderKL(Model):
    """Networks: `encoder` and `decoder`.

    Latents are small images [N, latent_channels, H / factor, W / factor]. Both networks take any size that the factor
    divides. Scaled latents, of about unit variance, are what a diffusion model sees; see `scale_latents`.
    """

    Config: ClassVar[type[ModelConfig]] = KLConfig
    config: KLConfig

    def __init__(self, config: KLConfig):
        super().__init__(config)
        side = config.resolution // config.factor
        self.latent_shape = (config.latent_channels, side, side)
        self.latent_size = config.latent_channels * side * side
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def latent(self, n: int, noise: Noise, psi: float = 1.0) -> Tensor:
        """Return scaled latents [n, latent_channels, h, w]: standard normal, times psi."""
        return noise.normal(n, *self.latent_shape) * psi

    def generate(self, z: Tensor, labels: Tensor | None, *, psi: float, chance: Noise) -> Tensor:
        """Return raw images for scaled latents z [N, latent_channels, h, w].

        The training hardly holds the latents to a normal distribution, place by place and least of all together: normal
        z give textures. Good samples need a prior over scaled latents, such as a diffusion model; give its output as z.
        """
        return self._show(self.unscale_latents(z))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Gaussian:
        """Return the posterior over latents for images [N, C, H, W] in [-1, 1]; H and W are multiples of the factor.

        Raises:
            ConfigError: images of another shape.
        """
        images = checked_images(images, self.config.channels, self.config.factor).to(self.device, torch.float32)
        moments = in_parts(self.averaged("encoder"), images, images[0, 0].numel())
        mean, log_variance = posterior(moments)
        return Gaussian(mean, (0.5 * log_variance).exp())

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
        """Return latents as a diffusion model sees them, of about unit variance."""
        checked_latents(latents, self.config.latent_channels)
        shift, scale = self._statistics(latents)
        return (latents - shift) * scale

    def unscale_latents(self, scaled: Tensor) -> Tensor:
        """Return latents as `decode` takes them: the inverse of `scale_latents`."""
        checked_latents(scaled, self.config.latent_channels)
        shift, scale = self._statistics(scaled)
        return scaled / scale + shift

    def refit(self) -> None:
        """Give an encoder whose latent channels changed a fresh head, unless a 1x1 convolution after it is fresh.

        Its rows are all means, then all log variances: rows kept by their number would change from one to the other.
        """
        heads = [name for name, what in self.adapted.items() if ".head." in f".{name}" and what != "copied"]
        if heads and not self.config.quant_conv:
            for network in {name.rpartition(".head.")[0] for name in heads}:
                head = self.get_submodule(f"{network}.head")
                assert isinstance(head, nn.Conv2d)
                head.reset_parameters()
            self.adapted |= dict.fromkeys(heads, "re-initialised")

    def finish(self) -> None:
        """Let a critic go that judged the training: it is no part of an autoencoder."""
        let_go(self)

    def recipe(self) -> Recipe:
        """Return one phase that moves encoder and decoder together.

        The published models were trained with a perceptual error and a discriminator besides, which give sharp detail:
        the additions `perceptual` and `patch_critic`.
        """
        networks = ("encoder", "decoder")
        settings = {"kl_weight": self.config.kl_weight}
        phase = Phase("autoencoder", networks, AutoencoderLoss(reconstruct), settings=settings)
        return Recipe(phases=(phase,), averaged=networks, batch=16, lr=1e-4, betas=(0.5, 0.9), clip_norm=1.0)

    def _show(self, latents: Tensor) -> Tensor:
        return in_parts(self.averaged("decoder"), latents, latents[0, 0].numel() * self.config.factor**2)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return what scaling subtracts and what it multiplies by, both [1, latent_channels, 1, 1]."""
        config = self.config
        ones = torch.ones(1, config.latent_channels, 1, 1, dtype=like.dtype, device=like.device)
        mean = like.new_tensor(config.latent_mean).reshape(1, -1, 1, 1) if config.latent_mean else 0 * ones
        std = like.new_tensor(config.latent_std).reshape(1, -1, 1, 1) if config.latent_std else ones
        return mean + config.shift_factor, config.scaling_factor / std


def reconstruct(model: Model, batch: Batch) -> Reconstruction:
    """Return the absolute error and the weighted divergence from a standard normal, per number of the image.

    Both are sums over an image in Rombach et al., appendix G; here both are divided by how many numbers it has.
    Watched besides, as of `zoo_vae.bounds.told`: the divergence of each latent number [latent_channels, h, w], and how
    many of them are active and informative.
    """
    assert isinstance(model, AutoencoderKL)
    mean, log_variance = posterior(model.encoder(batch.images))
    noise = batch.noise.normal(len(batch), *mean.shape[1:])
    images = model.decoder(mean + (0.5 * log_variance).exp() * noise).float()
    difference = images - batch.images
    error = difference.abs().mean()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    minimise = {
        "reconstruction": error,
        "divergence": model.config.kl_weight * divergence / difference[0].numel(),
    }
    each = normal_divergence(mean, 0.5 * log_variance).mean(0)
    watch = {
        "kl": divergence,
        "kl_each": each,
        "active": active(mean),
        "informative": informative(each),
        "mse": difference.square().mean(),
    }
    return Reconstruction(images, Terms(minimise, {name: value.detach() for name, value in watch.items()}), 1.0)
