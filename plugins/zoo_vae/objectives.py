"""What a variational autoencoder minimises and what tells whether it collapses: pure functions of tensors.

Divergences and bounds are in nats. Whatever has to be added up over a batch comes for each image, or as a mean over the
images of a process's part of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor

ACTIVE = 0.01      # variance of a posterior's mean over images above which a latent dimension is active (Burda et al.)
FLOOR = 0.01       # nats beyond those that are free above which a latent dimension says something of the image


# Likelihoods.


class Likelihood(NamedTuple):
    """How probable a number of the image is, given the decoder's."""

    distance: Callable[[Tensor], Tensor]              # differences -> distances, of the same shape
    surprise: Callable[[Tensor, Tensor], Tensor]      # (mean distance, scale) -> -log p, nats per number
    slope: Callable[[Tensor], Tensor]                 # scale -> derivative of the surprise by the distance


# Each surprise is least where the scale is the mean distance (optimal sigma; Rybkin et al., 2021, arXiv:2006.13202,
# section 3.2, for the normal). The scale is the mean absolute deviation, or the variance.
LIKELIHOODS = {
    "laplace": Likelihood(
        torch.abs, lambda error, scale: error / scale + scale.log() + log(2), lambda scale: 1 / scale
    ),
    "gaussian": Likelihood(
        torch.square, lambda error, scale: 0.5 * (error / scale + scale.log() + log(2 * pi)), lambda scale: 0.5 / scale
    ),
}


# Divergences of the posterior from the prior.


def log_normal(z: Tensor) -> Tensor:
    """Return the log density [...] of a standard normal at z [..., latent]."""
    return -0.5 * (z.square() + log(2 * pi)).sum(-1)


def normal_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return KL(N(mean, std^2) || N(0, 1)) of each number (Kingma and Welling, 2014, arXiv:1312.6114, appendix B)."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std


def matched_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """Return for each latent dimension [latent] the mean divergence from the normal that suits the batch best.

    That normal has the mean and the variance of all posteriors [N, latent] together, so that the mean divergence is
    log(its std) - E[log std]. It bounds from above what the dimension tells of the image, whatever the prior is.
    """
    variance = (2 * log_std).exp().mean(0) + mean.var(0, correction=0)
    return 0.5 * variance.log() - log_std.mean(0)


def free_bits(divergences: Tensor, free: float) -> Tensor:
    """Return the sum of max(free, divergence) over dimensions [D], each a mean over the batch.

    Kingma et al., 2016, arXiv:1606.04934, eq. 15: a dimension pays for what is beyond, so none is switched off.
    """
    return divergences.clamp_min(free).sum()


def annealed(progress: float, warmup: float, cycles: int = 1) -> float:
    """Return the weight of the divergence, 0 to 1, after a share `progress` of the training.

    Each cycle raises it from 0 within its first part and then keeps it at 1 (Fu et al., 2019, arXiv:1903.10145, eq. 6
    and 7: there 4 cycles, and half of each to rise in). One cycle is the usual warm-up (Bowman et al., 2016,
    arXiv:1511.06349).

    Args:
        warmup: share of a cycle in which the weight rises.
    """
    if not warmup or progress >= 1:
        return 1.0
    return min(1.0, progress * cycles % 1 / warmup)


# Bounds.


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Return log((1 / K) sum_k exp(log_weights [N, K])), for each image [N].

    With log_weights = log p(x, z_k) - log q(z_k | x) and z_k drawn from q it is the importance-weighted bound of
    log p(x) (Burda et al., 2016, arXiv:1509.00519, eq. 8): the evidence lower bound for K = 1, and never looser for a
    larger K.
    """
    return log_weights.logsumexp(1) - log(log_weights.shape[1])


# What tells whether the posterior collapses.


def active(mean: Tensor) -> Tensor:
    """Return how many dimensions tell images apart: Var_x(E[z_d | x]) > 0.01 (Burda et al., 2016, section 4.3).

    Args:
        mean: of the posteriors [N, latent].
    """
    return (mean.var(0, correction=0) > ACTIVE).float().sum()


def informative(divergences: Tensor, free: float = 0.0) -> Tensor:
    """Return how many dimensions of [D] have a divergence of more than 0.01 nats beyond what is free.

    A dimension below is (epsilon, delta)-collapsed on average (Lucas et al., 2019, arXiv:1911.02469, definition 1).
    """
    return (divergences > free + FLOOR).float().sum()
