"""How a recipe is given further terms from outside: in a turn it has, or in a lazy turn of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from zoo.adversarial import DiscriminatorLoss, Fakes, GeneratorLoss, fakes
from zoo.errors import ConfigError
from zoo.judged import Judged, Part, joined
from zoo.recipe import After, Batch, Loss, Phase, Recipe, Terms

if TYPE_CHECKING:
    from zoo.model import Model


@dataclass(frozen=True)
class PartLoss:
    """Parts as a loss of their own, for a lazy turn or beside a loss that takes none."""

    parts: tuple[Part, ...]
    make: Fakes = fakes
    moves: bool = False      # whether the generator learns from them

    def __call__(self, model: Model, batch: Batch) -> Terms:
        judged = Judged(model, batch, self.make, moves=self.moves)
        return joined(*(part(judged) for part in self.parts))


@dataclass(frozen=True)
class Together:
    """Two losses of the same turn: both see the batch, the second draws its chance after the first."""

    loss: Loss
    other: Loss

    def __call__(self, model: Model, batch: Batch) -> Terms:
        first = self.loss(model, batch)
        return joined(first, self.other(model, batch))


@dataclass(frozen=True)
class Both:
    """Two functions of a phase's `after`, one after the other."""

    first: After
    second: After

    def __call__(self, model: Model, watched: Mapping[str, Tensor]) -> None:
        self.first(model, watched)
        self.second(model, watched)


def with_part(
    recipe: Recipe, part: Part, *, trains: str = "discriminator", every: int = 1, after: After | None = None
) -> Recipe:
    """Return the recipe with a further term in the first turn that trains a network.

    A loss that takes parts shares its fakes and logits with it; another is played beside it.

    Args:
        trains: "discriminator" or "generator".
        every: above 1, the part is a turn of its own in each so many steps, weighted as much (lazy).
        after: what the turn does with watched values besides, such as `zoo.regularisers.follow_logits`.

    Raises:
        ConfigError: no turn trains that network.
    """
    at = next((i for i, phase in enumerate(recipe.phases) if trains in phase.trains), None)
    if at is None:
        known = ", ".join(sorted({name for phase in recipe.phases for name in phase.trains}))
        raise ConfigError(f"No phase of this recipe trains a {trains}; they train: {known}.")
    phase = recipe.phases[at]
    if after is not None and phase.after is not None:
        after = Both(phase.after, after)
    after = after or phase.after
    moves = trains == "generator"
    phases = list(recipe.phases)
    if every > 1:
        lazy = Phase(_named(part), phase.trains, PartLoss((part,), _make(phase.loss), moves), every)
        phases[at : at + 1] = [replace(phase, after=after), lazy]
    else:
        phases[at] = replace(phase, loss=_beside(phase.loss, part, moves), after=after)
    return replace(recipe, phases=tuple(phases))


def _beside(loss: Loss, part: Part, moves: bool) -> Loss:
    if isinstance(loss, DiscriminatorLoss | GeneratorLoss):
        return replace(loss, parts=(*loss.parts, part))
    if isinstance(loss, Together) and isinstance(loss.other, PartLoss):
        return replace(loss, other=replace(loss.other, parts=(*loss.other.parts, part)))
    return Together(loss, PartLoss((part,), _make(loss), moves))


def with_wrapped(recipe: Recipe, wrap: Callable[[Loss], Loss], *, trains: tuple[str, ...]) -> Recipe:
    """Return the recipe with the loss of every turn that trains one of these networks wrapped in another.

    Args:
        wrap: such as `zoo.spectral.Spectral`, `zoo.instance_noise.Noisy` or a `zoo.unrolled.Unrolled`.
    """
    return replace(recipe, phases=tuple(
        replace(phase, loss=wrap(phase.loss)) if set(trains) & set(phase.trains) else phase
        for phase in recipe.phases
    ))  # fmt: skip


def with_projection(recipe: Recipe, network: str, project: Callable[[nn.Module], None], name: str) -> Recipe:
    """Return the recipe with a projection of a network's weights after every turn that trains it.

    Args:
        name: of the projection, for the message.

    Raises:
        ConfigError: such a turn projects its weights already.
    """
    mine = [network in phase.trains for phase in recipe.phases]
    for phase, here in zip(recipe.phases, mine):
        if here and phase.project is not None:
            raise ConfigError(f"Phase {phase.name!r} projects its weights already: take that or {name}.")
    return replace(recipe, phases=tuple(
        replace(phase, project=project) if here else phase for phase, here in zip(recipe.phases, mine)
    ))  # fmt: skip


def _make(loss: Loss) -> Fakes:
    make: Fakes = getattr(loss, "make", fakes)
    return make


def _named(part: Part) -> str:
    if isinstance(name := getattr(part, "name", None), str):
        return name
    words = type(part).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in words).lstrip("_")
