"""Gives a model's recipe the additions that a user asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zoo.additions.contract import STAGES, Addition
from zoo.additions.names import addition
from zoo.additions.texts import completed, parsed, shown
from zoo.errors import ConfigError
from zoo.model import Model
from zoo.recipe import Recipe


def added(model: Model, recipe: Recipe, texts: Sequence[str]) -> Recipe:
    """Return the recipe with additions; `Recipe.added` says which, with all their options.

    They are applied stage by stage, those of one stage in the order given. Some change the model: its critic.

    Args:
        texts: such as ``("r1:gamma=1,every=16", "pacgan:m=2")``.

    Raises:
        ConfigError: an unknown option, a wrong value, or one that is given twice or does not fit the recipe.
        UnknownName: no such addition.
        Unsupported: the model lacks what it needs.
    """
    if isinstance(texts, str):
        raise ConfigError(f"add={texts!r}: give a list of additions, such as [{texts!r}].")
    chosen: list[tuple[str, Addition, dict[str, Any]]] = []
    for name, given in map(parsed, texts):
        found = addition(name)
        if name in [each for each, *_ in chosen]:
            raise ConfigError(f"{name} is added twice: keep one of them.")
        chosen.append((name, found, completed(found.apply, given, f"The addition {name}")))
    for name, found, options in sorted(chosen, key=lambda each: STAGES.index(each[1].stage)):
        recipe = found.apply(model, recipe, **options)
        recipe = replace(recipe, added=(*recipe.added, shown(name, options)))
    return recipe
