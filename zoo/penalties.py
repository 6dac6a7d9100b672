"""Regularisers of a critic or a generator: pure functions that return a scalar to minimise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

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
