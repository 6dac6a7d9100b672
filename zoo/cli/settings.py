"""``--set key=value``: settings of the model go to its configuration, the others to the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.errors import ConfigError, suggest
from zoo.values import parse

if TYPE_CHECKING:
    from zoo.model import ModelConfig

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the model or of its recipe; may be repeated."),
]


def split(given: Sequence[str] | None, config: type[ModelConfig]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (settings of the model, settings of the recipe) from ``key=value`` texts.

    Raises:
        ConfigError: a text without ``=``, a key given twice, or one that neither the model nor the recipe has.
    """
    from zoo.recipe import Recipe

    recipe = Recipe.settings()
    mine: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in pairs(given).items():
        if name not in config.model_fields and name not in recipe:
            near, fields_of_model = suggest(name, [*config.model_fields, *recipe]), ", ".join(config.model_fields)
            raise ConfigError(
                f"No setting {name!r}.{near} Of the model: {fields_of_model}. Of the recipe: {', '.join(recipe)}."
            )
        (mine if name in config.model_fields else others)[name] = value
    return mine, others


def pairs(given: Sequence[str] | None) -> dict[str, object]:
    """Return name -> value from ``key=value`` texts, whatever they are about.

    Raises:
        ConfigError: a text without ``=``, or a key given twice.
    """
    found: dict[str, object] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set {text}: write it as KEY=VALUE, such as lr=0.001.")
        if name in found:
            raise ConfigError(f"--set {name} is given twice: keep one of them.")
        found[name] = parse(value)
    return found
