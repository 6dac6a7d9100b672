"""Weights of gradient penalties that go to a share of themselves over the training."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from zoo.adversarial import NO_PENALTY, DiscriminatorLoss, R1Loss, R2Loss
from zoo.errors import ConfigError
from zoo.judged import Judged, Part
from zoo.parts import PartLoss
from zoo.recipe import Batch, Loss, Recipe, Terms
from zoo.regularisers import GradientPenalty, SquaredGradient
from zoo.schedules import Kind, scheduled

if TYPE_CHECKING:
    from zoo.model import Model


@dataclass(frozen=True)
class Faded:
    """A penalty as a loss of its own, whose weight goes to a share `last` of itself."""

    loss: Loss
    last: float
    kind: Kind

    def __call__(self, model: Model, batch: Batch) -> Terms:
        return _weighed(self.loss(model, batch), scheduled(1.0, self.last, batch.progress, self.kind))


@dataclass(frozen=True)
class FadedPart:
    """A penalty as a part of a turn, likewise."""

    part: Part
    last: float
    kind: Kind

    def __call__(self, judged: Judged) -> Terms:
        return _weighed(self.part(judged), scheduled(1.0, self.last, judged.batch.progress, self.kind))


def _weighed(terms: Terms, weight: float) -> Terms:
    return Terms({name: weight * value for name, value in terms.minimise.items()}, terms.watch)


def with_fading_penalties(recipe: Recipe, last: float, kind: Kind = "cosine") -> Recipe:
    """Return the recipe with gradient penalties, R1 and R2 among them, that end with a share of their weight.

    Raises:
        ConfigError: it has none, or has them within its loss, which says how they end.
    """
    phases = tuple(replace(phase, loss=_faded(phase.loss, last, kind)) for phase in recipe.phases)
    if all(new.loss is old.loss for new, old in zip(phases, recipe.phases, strict=True)):
        raise ConfigError("fading_penalty finds no gradient penalty in this recipe: add one, such as --add r1.")
    return replace(recipe, phases=phases)


def _faded(loss: Any, last: float, kind: Kind) -> Any:
    """Return a loss with its penalties faded, the same object where it has none."""
    if isinstance(loss, R1Loss | R2Loss):
        return Faded(loss, last, kind)
    changes: dict[str, Any] = {}
    if isinstance(loss, DiscriminatorLoss) and loss.gamma != NO_PENALTY:
        first, end = loss.gamma
        raise ConfigError(
            f"R1 and R2 of this recipe are within its loss, with gamma {first:g} to {end:g}: set those where the "
            "architecture has settings for them."
        )
    if isinstance(loss, DiscriminatorLoss | PartLoss):
        parts = tuple(
            FadedPart(part, last, kind) if isinstance(part, SquaredGradient | GradientPenalty) else part
            for part in loss.parts
        )
        changes = {"parts": parts} if parts != loss.parts else {}
    elif is_dataclass(loss):      # what wraps others holds them as `loss`, two of a turn as `other` too
        for name in ("loss", "other"):
            inner = getattr(loss, name, None)
            if inner is not None and (new := _faded(inner, last, kind)) is not inner:
                changes[name] = new
    return replace(loss, **changes) if changes else loss
