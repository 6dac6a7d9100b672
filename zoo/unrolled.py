"""Unrolled GANs: a generator that sees how its critic would answer (Metz et al., 2017, arXiv:1611.02163)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call

from zoo.adversarial import Fakes, fakes
from zoo.losses import Adversarial
from zoo.recipe import Batch, Loss, Terms
from zoo.substitution import played_with

if TYPE_CHECKING:
    from zoo.model import Model


def unrolled(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None,
    *,
    loss: Adversarial,
    steps: int,
    rate: float,
) -> dict[str, Tensor]:
    """Return a critic's parameters after steps of gradient descent, theta - rate dL/dtheta (eq. 7): name -> tensor.

    They are differentiable in the fakes through every step. The critic stays as it is, running statistics included.

    Args:
        real, fake: images [N, C, H, W]; the same in each step.
        loss: its discriminator's side is L.
        rate: of the descent. The paper's inner optimiser is Adam; plain descent has no state to carry.
    """
    buffers = {name: buffer.clone() for name, buffer in critic.named_buffers()}
    values = {name: value.detach().requires_grad_(True) for name, value in critic.named_parameters()}
    for _ in range(steps):
        on_real, on_fake = (_judged(critic, {**buffers, **values}, images, labels) for images in (real, fake))
        minimised = loss.discriminator(on_real, on_fake)
        gradients = torch.autograd.grad(
            minimised, list(values.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
        values = {name: value - rate * gradient for (name, value), gradient in zip(values.items(), gradients)}
    return values


def _judged(critic: nn.Module, values: Mapping[str, Tensor], images: Tensor, labels: Tensor | None) -> Tensor:
    logits: Tensor = functional_call(critic, dict(values), (images, labels))
    return logits if logits.dtype == torch.float64 else logits.float()


@dataclass(frozen=True)
class Unrolled:
    """A generator's loss under the critic of some steps ahead (eq. 10), whatever the loss.

    Args:
        adversarial: what the critic minimises in those steps.
        steps: k; the paper takes 5 to 10. Each costs a critic's turn, in memory too.
        rate: of the critic's descent.
    """

    loss: Loss
    adversarial: Adversarial
    steps: int = 5
    rate: float = 0.01
    make: Fakes = fakes

    def __call__(self, model: Model, batch: Batch) -> Terms:
        critic = model.get_submodule("discriminator")
        fake = self.make(model, batch)
        ahead = unrolled(
            critic, batch.images, fake, batch.labels, loss=self.adversarial, steps=self.steps, rate=self.rate
        )
        return played_with({f"discriminator.{name}": value for name, value in ahead.items()}, self.loss, model, batch)
