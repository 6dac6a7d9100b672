"""What the VAE minimises: minus a lower bound of the log evidence, in nats per number of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor

from zoo.model import Model
from zoo.recipe import Batch, Terms
from zoo_vae.loss import Reconstruction
from zoo_vae.objectives import (
    LIKELIHOODS,
    active,
    annealed,
    free_bits,
    informative,
    log_mean_exp,
    log_normal,
    matched_divergence,
    normal_divergence,
)

if TYPE_CHECKING:
    from zoo_vae.model import VAE


def evidence(model: Model, batch: Batch) -> Reconstruction:
    """Return minus the evidence lower bound as two terms, reconstruction and divergence, with free bits.

    The divergence from a normal prior is exact, that from a learned one is estimated from the same latents that are
    decoded; free bits hold for each dimension of the one and for the sum of the other.
    """
    vae = cast("VAE", model)
    config = vae.config
    mean, log_std = vae.encoder(batch.images)
    noise = batch.noise.normal(len(batch), vae.latent_size)
    latents = mean + log_std.exp() * noise
    images = vae.decoder(latents, batch.labels).float()
    difference = images - batch.images
    likelihood, scale = LIKELIHOODS[config.likelihood], vae.scale
    error = likelihood.distance(difference).mean()
    if config.prior == "flow":
        each = (log_normal(noise) - log_std.sum(1) - vae.log_prior(latents, batch.labels)).mean()[None]
    else:
        each = normal_divergence(mean, log_std).mean(0)
    paid = free_bits(each, config.free_bits * (vae.latent_size // len(each)))
    weight = config.beta * annealed(batch.progress, config.warmup, config.cycles)
    minimise = {
        "reconstruction": likelihood.surprise(error, scale),
        "divergence": weight * paid / difference[0].numel(),
    }
    watch = {"kl": each.sum(), "error": error, "mse": difference.square().mean(), **told(vae, mean, log_std)}
    return Reconstruction(images, Terms(minimise, _detached(watch)), likelihood.slope(scale))


def importance_weighted(model: Model, batch: Batch) -> Reconstruction:
    """Return minus the importance-weighted bound (Burda et al., 2016, arXiv:1509.00519, eq. 8) as one term.

    Each image has K latents; the weight of the divergence is inside the logarithm. The error that the likelihood's
    scale follows is weighted as the latents are, which is where the bound is best. Watched besides: how many of the K
    latents count, 1 / sum of squared weights. What further terms judge is the first latent's image.
    """
    vae = cast("VAE", model)
    config, n, k = vae.config, len(batch), vae.config.samples
    mean, log_std = vae.encoder(batch.images)
    noise = batch.noise.normal(n, k, vae.latent_size)
    latents = (mean[:, None] + log_std.exp()[:, None] * noise).flatten(0, 1)             # [N K, latent]
    labels = None if batch.labels is None else batch.labels.repeat_interleave(k, 0)
    images = vae.decoder(latents, labels).float().reshape(n, k, *batch.images.shape[1:])
    difference = images - batch.images[:, None]
    likelihood, scale, numbers = LIKELIHOODS[config.likelihood], vae.scale, batch.images[0].numel()
    distance = likelihood.distance(difference).flatten(2).mean(2)                        # [N, K]
    beyond = log_normal(noise) - log_std.sum(1)[:, None] - vae.log_prior(latents, labels).reshape(n, k)
    weight = config.beta * annealed(batch.progress, config.warmup, config.cycles)
    log_weights = -(likelihood.surprise(distance, scale) * numbers + weight * beyond)
    shares = log_weights.detach().softmax(1)
    watch = {
        "kl": normal_divergence(mean, log_std).sum(1).mean() if config.prior == "normal" else beyond.mean(),
        "error": (shares * distance).sum(1).mean(),
        "mse": difference.square().mean(),
        "effective_samples": (1 / shares.square().sum(1)).mean(),
        **told(vae, mean, log_std),
    }
    terms = Terms({"bound": -log_mean_exp(log_weights).mean() / numbers}, _detached(watch))
    return Reconstruction(images[:, 0], terms, likelihood.slope(scale))


def told(vae: VAE, mean: Tensor, log_std: Tensor) -> dict[str, Tensor]:
    """Return what tells how much the latents are used: `kl_each` [latent], and two counts of dimensions.

    With a normal prior `kl_each` is each dimension's part of the divergence, with a learned one that from the best
    normal: see `zoo_vae.objectives.matched_divergence`.
    """
    normal = vae.config.prior == "normal"
    each = normal_divergence(mean, log_std).mean(0) if normal else matched_divergence(mean, log_std)
    return {
        "kl_each": each,
        "active": active(mean),
        "informative": informative(each, vae.config.free_bits),
    }


def _detached(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in values.items()}
