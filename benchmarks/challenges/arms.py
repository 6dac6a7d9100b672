"""From an arm's settings to a recipe: a loss, R1 and R2, fields of the recipe, and additions as `--add` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zoo.additions.apply import added
from zoo.adversarial import adversarial_phases
from zoo.losses import adversarial
from zoo.model import Model
from zoo.recipe import Recipe


def recipe_of(model: Model, settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a GAN's arm; what its settings leave out is the model's own.

    Args:
        settings: "loss", a name of `zoo.losses.ADVERSARIAL`; "gamma" of R1 and R2, first and last, of the
            non-saturating loss unless another is named; "recipe", fields; "add", a list.
    """
    recipe = model.recipe()
    if {"loss", "gamma"} & set(settings):
        loss, (first, last) = settings.get("loss", "nonsaturating"), settings.get("gamma", (0.0, 0.0))
        recipe = replace(recipe, phases=adversarial_phases(adversarial(loss), gamma=(first, last)))
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                              for name, value in settings.get("recipe", {}).items()}  # fmt: skip
    return added(model, replace(recipe, **fields), settings.get("add", ()))
