"""Regularisers as parts of a turn: what a recipe adds to a discriminator's or a generator's loss (`zoo.parts`).

Each is data and a function from `Judged` to terms, like the losses it joins; the formulas are in `zoo.penalties`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.judged import Judged
from zoo.penalties import around, gradient_penalty, interpolates, lecam, norm_penalty, orthogonality
from zoo.recipe import Terms

if TYPE_CHECKING:
    from zoo.model import Model

Place = Literal["between", "around", "reals", "fakes"]
PLACES: dict[Place, Callable[[Judged], Tensor]] = {
    "between": lambda judged: interpolates(judged.real, judged.fake, judged.batch.noise),
    "around": lambda judged: around(judged.real, judged.batch.noise),
    "reals": lambda judged: judged.real,
    "fakes": lambda judged: judged.fake,
}
LOGITS = "logit_means"      # the model's buffer that LeCam remembers logits in
DECAY = 0.99                # share of themselves that LeCam's running means keep at each step


@dataclass(frozen=True)
class GradientPenalty:
    """weight E[(||grad D|| - target)^2], for the discriminator.

    As it stands, WGAN-GP (Gulrajani et al., 2017, arXiv:1704.00028, eq. 3; use the Wasserstein loss, five steps of the
    critic for each of the generator, Adam 1e-4 with betas 0 and 0.9, no batch norm in the critic). With
    `at="around"`, DRAGAN (Kodali et al., 2017, arXiv:1705.07215). With `target=0`, zero-centred on interpolates
    (Thanh-Tung et al., 2019, arXiv:1902.03984).
    """

    weight: float = 10.0
    target: float = 1.0
    one_sided: bool = False
    at: Place = "between"

    def __call__(self, judged: Judged) -> Terms:
        points = PLACES[self.at](judged)
        penalty = norm_penalty(
            judged.critic, points, judged.batch.labels, target=self.target, one_sided=self.one_sided
        )
        return Terms({"gradient_penalty": self.weight * penalty}, {"gradient_excess": penalty.detach()})


@dataclass(frozen=True)
class SquaredGradient:
    """gamma / 2 E[||grad D||^2], for the discriminator: R1 at reals, R2 at fakes (Mescheder et al., 2018, eq. 9)."""

    gamma: float
    at: Place = "reals"
    name: str = "r1"

    def __call__(self, judged: Judged) -> Terms:
        penalty = gradient_penalty(judged.critic, PLACES[self.at](judged), judged.batch.labels)
        return Terms({self.name: 0.5 * self.gamma * penalty}, {f"{self.name}_gradient": penalty.detach()})


@dataclass(frozen=True)
class LeCam:
    """LeCam regularisation of the discriminator, for few images (Tseng et al., 2021, arXiv:2104.03310).

    The running means are a buffer of the model that `remember_logits` makes and `follow_logits`, the phase's `after`,
    moves by the logits which `DiscriminatorLoss` watches, averaged over the batch and all processes: every process has
    the same. The buffer is not persistent, as it belongs to a training and not to weights.

    Args:
        weight: the paper's 0.3 is for BigGAN's hinge loss; the non-saturating loss of StyleGAN2 takes 3e-7.
    """

    weight: float = 0.3

    def __call__(self, judged: Judged) -> Terms:
        sums = dict(judged.model.named_buffers(recurse=False)).get(LOGITS)
        if sums is None:
            raise ConfigError("LeCam needs a model that remembers logits: zoo.regularisers.remember_logits(model).")
        real, fake, seen = sums.clone()      # what `follow_logits` changes in place is not the graph's
        scale = seen.clamp_min(torch.finfo(seen.dtype).tiny)
        penalty = lecam(judged.on_real, judged.on_fake, real / scale, fake / scale)
        return Terms({"lecam": self.weight * torch.where(seen > 0, penalty, 0 * penalty)})


def remember_logits(model: Model) -> None:
    """Give a model the buffer that LeCam needs, empty, unless it has it: sums of logits, and the weight in them."""
    if LOGITS not in dict(model.named_buffers(recurse=False)):
        model.register_buffer(LOGITS, torch.zeros(3, device=model.device), persistent=False)


@torch.no_grad()
def follow_logits(model: Model, watched: Mapping[str, Tensor]) -> None:
    """Move the running means by a step's mean logits; for `Phase.after`. Their start at zero is divided out."""
    sums = model.get_buffer(LOGITS)
    now = torch.stack([watched["logits_real"], watched["logits_fake"], torch.ones_like(watched["logits_real"])])
    sums.lerp_(now.to(sums), 1 - DECAY)


@dataclass(frozen=True)
class Orthogonal:
    """weight ||W W^T without its diagonal||^2 over a network's weights (Brock et al., 2019, arXiv:1809.11096, eq. 3).

    Args:
        weight: the paper's 1e-4, for a generator.
        skip: shell patterns of parameter names to leave out; class embeddings, as in the paper's code.
    """

    weight: float = 1e-4
    network: str = "generator"
    skip: tuple[str, ...] = ("*embedding*", "*shared*")

    def __call__(self, judged: Judged) -> Terms:
        weights: list[Tensor] = [
            weight for name, weight in judged.model.get_submodule(self.network).named_parameters()
            if weight.ndim > 1 and not any(fnmatchcase(name, pattern) for pattern in self.skip)
        ]  # fmt: skip
        with torch.autocast(weights[0].device.type, enabled=False):
            return Terms({"orthogonal": self.weight * orthogonality(weights)})
