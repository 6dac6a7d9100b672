"""How fast each network learns, and how penalties fade, as additions."""

from __future__ import annotations

from dataclasses import replace

from zoo.additions.contract import Addition, Positive, Share
from zoo.errors import Unsupported
from zoo.fading import with_fading_penalties
from zoo.model import Model
from zoo.recipe import Recipe
from zoo.schedules import Kind


def ttur(model: Model, recipe: Recipe, *, generator: Positive = 1.0, discriminator: Positive = 4.0) -> Recipe:
    """Multiply the learning rate of each player's turns.

    Raises:
        Unsupported: one of them has no turn of its own.
    """
    rates: dict[tuple[str, ...], float] = {("generator",): generator, ("discriminator",): discriminator}
    turns = {phase.trains for phase in recipe.phases}
    for player in rates:
        if player not in turns:
            known = ", ".join(sorted("+".join(trains) for trains in turns))
            raise Unsupported(f"ttur sets the pace of a {player[0]} alone; {model.architecture} moves: {known}.")
    return replace(recipe, phases=tuple(
        replace(phase, rate=phase.rate * rates.get(phase.trains, 1.0)) for phase in recipe.phases
    ))  # fmt: skip


def fading_penalty(model: Model, recipe: Recipe, *, last: Share = 0.1, kind: Kind = "cosine") -> Recipe:
    """Let gradient penalties go to a share of their weight over the training."""
    return with_fading_penalties(recipe, last, kind)


TTUR = Addition(
    summary="two time scales: each player's learning rate multiplied; 4 for the critic is usual",
    failure="a critic too slow to say anything, or one that outruns the generator",
    paper="Heusel et al., 2017, arXiv:1706.08500",
    apply=ttur,
    stage="schedule",
)
FADING_PENALTY = Addition(
    summary="gradient penalties that end with a share of their weight",
    failure="a penalty strong enough for the beginning blurs the end",
    paper="Huang et al., 2024, arXiv:2501.05441",
    apply=fading_penalty,
    stage="schedule",
)
