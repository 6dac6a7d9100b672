"""Regularisers of a critic or a generator: pure functions that return a scalar to minimise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from zoo.noise import Noise

Critic = Callable[..., Tensor]       # (images [N, C, H, W], labels) -> logits [N, 1]


def gradient_penalty(critic: Critic, images: Tensor, labels: Tensor | None) -> Tensor:
    """Return E[ ||d critic / d images||^2 ], the squared norm summed over an image and averaged over the batch.

    On real images, times gamma / 2, this is R1; on fakes R2 (Mescheder et al., 2018, arXiv:1801.04406, eq. 9).
    """
    images = images.detach().requires_grad_(True)
    return squared_gradient(critic(images, labels), images)


def squared_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """Return E[ ||d logits / d images||^2 ] of logits that were computed from images [N, C, H, W] that need it.

    As `gradient_penalty`, for a turn that has the logits already.
    """
    (gradient,) = torch.autograd.grad(logits.float().sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()


def gradient_norms(critic: Critic, images: Tensor, labels: Tensor | None) -> Tensor:
    """Return ||d critic / d images|| for each image [N]; where the gradient is zero, so is the norm's own."""
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(_wide(critic(images, labels)).sum(), images, create_graph=True)
    norms: Tensor = torch.linalg.vector_norm(_wide(gradient).flatten(1), dim=1)
    return norms


def norm_penalty(
    critic: Critic, images: Tensor, labels: Tensor | None, *, target: float = 1.0, one_sided: bool = False
) -> Tensor:
    """Return E[ (||d critic / d images|| - target)^2 ] (Gulrajani et al., 2017, arXiv:1704.00028, eq. 3).

    The critic must judge each image by itself: batch norm makes the norms those of a batch.

    Args:
        images: where the gradient is taken: `interpolates` in the paper, `around` reals for DRAGAN.
        target: 0 is `gradient_penalty`.
        one_sided: only norms above the target count (Petzka et al., 2018, arXiv:1709.08894).
    """
    excess = gradient_norms(critic, images, labels) - target
    return (relu(excess) if one_sided else excess).square().mean()


def interpolates(real: Tensor, fake: Tensor, noise: Noise) -> Tensor:
    """Return one point on the line between each real and the fake of its row (Gulrajani et al., 2017, algorithm 1)."""
    share = noise.uniform(len(real), *[1] * (real.ndim - 1)).to(real.dtype)
    return (fake + share * (real - fake)).detach()


def around(images: Tensor, noise: Noise, spread: float = 0.5) -> Tensor:
    """Return images with normal noise: DRAGAN's neighbourhood (Kodali et al., 2017, arXiv:1705.07215).

    Args:
        spread: standard deviation of the noise, in those of the values of these images (this process's share).
    """
    return (images + spread * images.std() * noise.normal(*images.shape).to(images.dtype)).detach()


def lecam(on_real: Tensor, on_fake: Tensor, mean_real: Tensor, mean_fake: Tensor) -> Tensor:
    """Return E[relu(D(x) - mean_fake)^2] + E[relu(mean_real - D(G(z)))^2] (Tseng et al., 2021, arXiv:2104.03310).

    Reals are held near the running mean of fakes and the other way round. The rectifier is of the authors' code: only
    what lies on its own side of the other's mean counts.

    Args:
        on_real, on_fake: logits [N, K].
        mean_real, mean_fake: running means of earlier logits, scalars.
    """
    return relu(on_real - mean_fake).square().mean() + relu(mean_real - on_fake).square().mean()


def path_lengths(images: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """Return ||J_w^T y|| for each image [N] (Karras et al., 2020, arXiv:1912.04958, eq. 4).

    Args:
        images: [N, C, H, W], a differentiable function of `w`.
        w: styles [N, layers, w]; the length is averaged over layers as in the paper's code.
        noise: standard normal [N, C, H, W]; divided by sqrt(H W) so that lengths do not depend on resolution.
    """
    y = noise / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((images * y).float().sum(), w, create_graph=True)
    return gradient.float().square().sum(2).mean(1).sqrt()


def orthogonality(weights: list[Tensor]) -> Tensor:
    """Return the sum of ||W W^T without its diagonal||_F^2 over weights (Brock et al., 2019, arXiv:1809.11096, eq. 3).

    Each weight [out, ...] is read as a matrix [out, rest].
    """
    total = torch.zeros((), device=weights[0].device)
    for weight in weights:
        matrix = weight.flatten(1)
        gram = matrix @ matrix.T
        total = total + (gram - torch.diag(torch.diagonal(gram))).square().sum()
    return total


@torch.no_grad()
def clip_weights(network: nn.Module, bound: float = 0.01) -> None:
    """Clip every parameter to [-bound, bound] (Arjovsky et al., 2017, arXiv:1701.07875, algorithm 1)."""
    for parameter in network.parameters():
        parameter.clamp_(-bound, bound)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
