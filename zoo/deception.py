"""Adaptive pseudo augmentation (Jiang et al., 2021, arXiv:2111.06849): fakes among the reals deceive a critic.

A critic that knows few reals by heart is shown fakes in their place, each with probability p. ADA's rule steers p: it
rises while the mean sign of logits on what counts as real is above its target. Unlike ADA no image is changed, so it
fits data that no change leaves natural.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.adversarial import Fakes, fakes, innermost
from zoo.errors import ConfigError
from zoo.parts import Both
from zoo.recipe import Batch, Loss, Phase, Recipe, Terms
from zoo.steering import HEARD, Steered

if TYPE_CHECKING:
    from zoo.model import Model

MEMORY = "deception"                                      # the model's buffer of what `Steered` remembers
NAMES = ("p", "sum", "turns", "images", "steps")          # in it, in this order
CRITIC = "discriminator"


@dataclass(frozen=True)
class Deceived:
    """A critic's loss that takes some fakes for reals, in penalties on reals too.

    They are made for the labels of the images whose places they take, and none are made while p is 0.
    """

    loss: Loss
    make: Fakes = fakes

    def __call__(self, model: Model, batch: Batch) -> Terms:
        p = float(_memory(model)[0])
        if p:
            with torch.no_grad():
                false = self.make(model, batch)
            chosen = batch.noise.uniform(len(batch), 1, 1, 1) < p
            batch = replace(batch, images=torch.where(chosen, false.to(batch.images.dtype), batch.images))
        terms = self.loss(model, batch)
        if HEARD not in terms.watch:
            return terms
        return replace(terms, watch={**terms.watch, "deceived": torch.tensor(p, device=batch.images.device)})


@dataclass(frozen=True)
class Steering:
    """What the critic's turn does after its step: moves p.

    The state is a buffer of the model, the same in all processes, as it is moved by means over all of them. It is not
    among the weights: it belongs to a training, whose checkpoints hold it.
    """

    target: float
    kimg: float
    batch: int

    @torch.no_grad()
    def __call__(self, model: Model, watched: Mapping[str, Tensor]) -> None:
        if HEARD not in watched:
            raise ConfigError(
                f"apa moves its p by {HEARD!r}, the mean sign of logits on reals, which this loss does not watch "
                "(relativistic and Wasserstein ones have no zero): use another loss, or leave apa out."
            )
        memory = _memory(model)
        steered = Steered(0.0, self.target, self.kimg)
        steered.restore(dict(zip(NAMES, memory.tolist(), strict=True)))
        steered.hear({HEARD: float(watched[HEARD])})
        steered.adapt(self.batch)
        state = steered.state()
        memory.copy_(torch.tensor([state[name] for name in NAMES]))


def with_deception(model: Model, recipe: Recipe, *, target: float = 0.6, kimg: float = 500.0) -> Recipe:
    """Return the recipe with fakes among the reals of its critic, and give the model what p is remembered in.

    Args:
        target: mean sign of logits on reals that p aims at.
        kimg: thousand images in which p can go from 0 to 1, at the recipe's batch.

    Raises:
        ConfigError: no turn trains a critic.
    """
    turns = [phase for phase in recipe.phases if CRITIC in phase.trains]
    if not turns:
        raise ConfigError("apa deceives a discriminator, and this recipe trains none.")
    model.register_buffer(MEMORY, torch.zeros(len(NAMES), device=model.device), persistent=False)
    steering = Steering(target, kimg, recipe.batch)
    judging = next((phase for phase in turns if hasattr(innermost(phase.loss), "adversarial")), turns[0])
    make = getattr(innermost(judging.loss), "make", fakes)
    return replace(recipe, phases=tuple(
        _deceived(phase, make, steering if phase is judging else None) if phase in turns else phase
        for phase in recipe.phases
    ))  # fmt: skip


def _deceived(phase: Phase, make: Fakes, steering: Steering | None) -> Phase:
    changes: dict[str, Any] = {"loss": Deceived(phase.loss, make)}
    if steering is not None:
        said = f"target={steering.target:g}, kimg={steering.kimg:g}"
        changes["settings"] = {**phase.settings, "deception": said}
        changes["after"] = steering if phase.after is None else Both(phase.after, steering)
    return replace(phase, **changes)


def _memory(model: Model) -> Tensor:
    memory = dict(model.named_buffers(recurse=False)).get(MEMORY)
    if memory is None:
        raise ConfigError("This model does not remember how far its critic is deceived: zoo.deception.with_deception.")
    return memory
