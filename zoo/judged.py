"""What the terms of one turn share: the batch's reals, fakes, and the critic's logits on both, each made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.recipe import Batch, Terms

if TYPE_CHECKING:
    from zoo.model import Model


class Judged:
    """A batch as one turn sees it. What is made is made when it is first asked for, and kept.

    Args:
        make: (model, batch) -> fakes [N, C, H, W].
        moves: whether the generator learns in this turn, so that fakes keep the way back to it.
    """

    def __init__(self, model: Model, batch: Batch, make: Callable[[Model, Batch], Tensor], *, moves: bool = False):
        self.model, self.batch = model, batch
        self._make, self._moves = make, moves

    @property
    def critic(self) -> nn.Module:
        """The discriminator: (images [N, C, H, W], labels) -> logits [N, K]."""
        return self.model.get_submodule("discriminator")

    @cached_property
    def real(self) -> Tensor:
        """The batch's images [N, C, H, W]."""
        return self.batch.images.detach()

    @cached_property
    def fake(self) -> Tensor:
        """As many fakes, with the same labels."""
        with torch.set_grad_enabled(self._moves and torch.is_grad_enabled()):
            return self._make(self.model, self.batch)

    @cached_property
    def on_real(self) -> Tensor:
        """Logits [N, K] of the reals, float32."""
        return self.judge(self.real)

    @cached_property
    def on_fake(self) -> Tensor:
        """Logits [N, K] of the fakes, float32."""
        return self.judge(self.fake)

    def judge(self, images: Tensor) -> Tensor:
        """Return the critic's logits [N, K] of as many images, with the batch's labels."""
        logits: Tensor = self.critic(images, self.batch.labels).float()
        return logits


Part = Callable[[Judged], Terms]      # a further term of a turn: a regulariser, a consistency, a wish for diversity


def joined(first: Terms, *more: Terms) -> Terms:
    """Return all terms as those of one loss.

    Raises:
        ConfigError: two minimise a term of the same name.
    """
    if not more:
        return first
    minimise, watch = dict(first.minimise), dict(first.watch)
    for terms in more:
        for name in terms.minimise:
            if name in minimise:
                raise ConfigError(f"Two parts of a loss minimise a term {name!r}: give one of them.")
        minimise.update(terms.minimise)
        watch.update(terms.watch)
    return Terms(minimise, watch)
