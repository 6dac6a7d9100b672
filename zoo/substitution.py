"""Plays a loss with other values in place of some parameters: nothing of the model or its state dict changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.func import functional_call

from zoo.recipe import Batch, Loss, Terms

if TYPE_CHECKING:
    from zoo.model import Model


def played_with(values: Mapping[str, Tensor], loss: Loss, model: Model, batch: Batch) -> Terms:
    """Return a loss's terms as if parameters or buffers had these values, which gradients flow back to.

    Args:
        values: the model's names, such as "discriminator.head.weight", -> tensors of the same shape.
    """
    played = functional_call(_Scene(loss, model), {f"model.{name}": value for name, value in values.items()}, (batch,))
    assert isinstance(played, Terms)
    return played


class _Scene(nn.Module):
    """What torch can call with other parameters: a loss and its model."""

    def __init__(self, loss: Loss, model: Model):
        super().__init__()
        self.loss, self.model = loss, model

    def forward(self, batch: Batch) -> Terms:
        return self.loss(self.model, batch)
