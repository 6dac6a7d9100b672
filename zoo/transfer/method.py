"""What a transfer method is: a function from a model and its recipe to a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from zoo.errors import Unsupported
from zoo.model import Model
from zoo.recipe import Recipe

GENERATOR = "generator"      # the network that methods for generators act on


@dataclass(frozen=True)
class Method:
    """One transfer method.

    `apply` is a function (model, recipe, *, option: type = default, ...) -> recipe, called when the model holds the
    parent's weights. It may change the model. Its keyword-only parameters are the options that a user may set, checked
    by their annotations. What it remembers of the parent is made anew when a run is resumed, from the same parent.
    """

    summary: str
    paper: str
    apply: Callable[..., Recipe]


def generator_of(model: Model, recipe: Recipe, method: str) -> nn.Module:
    """Return the generator that a recipe trains.

    Raises:
        Unsupported: there is none, or it is fresh.
    """
    if not any(GENERATOR in phase.trains for phase in recipe.phases):
        raise Unsupported(f"{model.architecture} has no generator, which method {method} acts on: use full or l2_sp.")
    if GENERATOR in (*recipe.fresh, *model.fresh):
        raise Unsupported(f"Method {method} keeps what a generator has learnt, and this one is fresh: use method full.")
    return model.get_submodule(GENERATOR)
