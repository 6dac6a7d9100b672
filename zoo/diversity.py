"""Diversity: what a generator pays for making one image of many latents. Formulas, and parts of its turn.

What a critic sees of several images is no matter of the generator's turn: `zoo.minibatch_std`, `zoo.packing`. Means and
covariances are those of a process's part of the batch, and of a micro-batch, as in batch norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from zoo.errors import ConfigError
from zoo.judged import Judged
from zoo.recipe import Terms


def mode_seeking(one: Tensor, other: Tensor, z_one: Tensor, z_other: Tensor, eps: float = 1e-5) -> Tensor:
    """Return 1 / (d(G(z1), G(z2)) / d(z1, z2) + eps), d the mean absolute difference.

    Mao et al., 2019, arXiv:1903.05628; the inverse of what the paper maximises is its authors' loss, as is eps.

    Args:
        one, other: images [N, C, H, W] of the latents [N, latent].
    """
    ratio = (one - other).abs().mean() / (z_one - z_other).abs().mean()
    return 1 / (ratio + eps)


def bures(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared Bures distance tr(A + B - 2 (A B)^(1/2)) between the covariances A, B of features [N, F].

    De Meulemeester et al., 2021, arXiv:2006.09096: each feature vector is brought to length 1, then the batch's
    mean is taken away. With A = X^T X and B = Y^T Y, the trace of the root is the sum of the singular values of
    X Y^T, [N, N]: exact where the paper iterates, and no F x F matrix is made.
    """
    x, y = (_centred(features) for features in (one, other))
    distance: Tensor = x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum()
    return distance


def _centred(features: Tensor) -> Tensor:
    unit: Tensor = normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=1)
    return (unit - unit.mean(0)).div(len(unit) ** 0.5)


def feature_matching(one: Tensor, other: Tensor) -> Tensor:
    """Return ||E f(x) - E f(G(z))||^2 of features [N, F] (Salimans et al., 2016, arXiv:1606.03498, section 3.1)."""
    return (one.mean(0) - other.mean(0)).square().sum()


def features(critic: nn.Module, images: Tensor, labels: Tensor | None) -> Tensor:
    """Return what the last layer of a critic sees of images: [N, F], or a row for each of its packs.

    That is the input of the last module called which has a weight matrix and no modules of its own.

    Raises:
        ConfigError: there is none.
    """
    seen: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    layers = [
        module for module in critic.modules()
        if not any(module.children()) and any(weight.ndim > 1 for weight in module.parameters(recurse=False))
    ]  # fmt: skip
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        judged = critic(images, labels)
    finally:
        for hook in hooks:
            hook.remove()
    shown = [each for each in seen if len(each) == len(judged) and each is not labels]
    if not shown:
        raise ConfigError(f"{type(critic).__name__} has no layer with a weight matrix: no features can be compared.")
    return shown[-1].flatten(1)


@dataclass(frozen=True)
class ModeSeeking:
    """weight / (distance of images over distance of latents), for the generator: pairs with half the batch's labels."""

    weight: float = 1.0

    def __call__(self, judged: Judged) -> Terms:
        model, batch = judged.model, judged.batch
        n = max(1, len(batch) // 2)
        labels = None if batch.labels is None else batch.labels[:n]
        z_one, z_other = (model.latent(n, batch.noise) for _ in range(2))
        one, other = (model.get_submodule("generator")(z, labels) for z in (z_one, z_other))
        return Terms({"mode_seeking": self.weight * mode_seeking(one.float(), other.float(), z_one, z_other)})


@dataclass(frozen=True)
class Bures:
    """weight times the squared Bures distance of the critic's features on reals and fakes, for the generator."""

    weight: float = 1.0

    def __call__(self, judged: Judged) -> Terms:
        real, fake = _both(judged)
        with torch.autocast(fake.device.type, enabled=False):
            return Terms({"bures": self.weight * bures(real, fake)})


@dataclass(frozen=True)
class FeatureMatching:
    """weight times the squared difference of the critic's mean features on reals and fakes, for the generator.

    In the paper it stands alone; here it joins the adversarial term, as it is mostly used.
    """

    weight: float = 1.0

    def __call__(self, judged: Judged) -> Terms:
        real, fake = _both(judged)
        return Terms({"feature_matching": self.weight * feature_matching(real.float(), fake.float())})


def _both(judged: Judged) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        real = features(judged.critic, judged.real, judged.batch.labels)
    return real, features(judged.critic, judged.fake, judged.batch.labels)
