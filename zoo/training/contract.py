"""What a recipe must be and its losses must return: looked at where a stranger's recipe enters, in one line."""

from __future__ import annotations

from math import isfinite

from torch import Tensor

from zoo.errors import ConfigError
from zoo.model import Model
from zoo.recipe import Phase, Recipe, Terms


def check_recipe(recipe: Recipe, model: Model) -> None:
    """Refuse phases that cannot be played, and names of networks that the model has not.

    Raises:
        ConfigError: naming the phase or the field.
    """
    if not recipe.phases:
        raise ConfigError("This recipe has no phases: nothing would be trained.")
    networks = sorted(model.networks())
    for phase in recipe.phases:
        if not isinstance(phase, Phase):
            raise ConfigError(f"{str(phase)[:60]!r} among the recipe's phases is no zoo.Phase.")
        _check_phase(phase)
        _check_names(f"Phase {phase.name!r} trains", phase.trains, networks)
        if not phase.trains:
            raise ConfigError(f"Phase {phase.name!r} trains nothing; networks: {', '.join(networks)}.")
    for field in ("averaged", "critics", "fresh"):
        _check_names(f"The recipe's {field}:", getattr(recipe, field), networks)
    if recipe.final_betas not in (None, recipe.betas) and recipe.anneal == "constant":
        raise ConfigError(
            f"final_betas={recipe.final_betas}: nothing moves with anneal=constant; give linear or cosine."
        )


def check_terms(phase: Phase, terms: object) -> Terms:
    """Return what a loss returned, if it can be minimised.

    Raises:
        ConfigError: it is no `Terms`, has no term, or one that is not a scalar tensor; or none depends on a weight.
    """
    if not isinstance(terms, Terms) or not terms.minimise:
        given = "no term" if isinstance(terms, Terms) else type(terms).__name__
        raise ConfigError(f"The loss of phase {phase.name!r} returned {given}: return zoo.Terms with a named scalar.")
    for name, value in terms.minimise.items():
        if not isinstance(value, Tensor) or value.ndim:
            given = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(f"The term {phase.name}.{name} must be a scalar tensor but is {given}: take its mean.")
    for name, value in terms.watch.items():
        if not isinstance(value, Tensor):
            raise ConfigError(f"{phase.name} watches {name}, which must be a tensor but is {type(value).__name__}.")
    if not any(value.requires_grad for value in terms.minimise.values()):
        raise ConfigError(
            f"The loss of phase {phase.name!r} depends on no weight of {', '.join(phase.trains)}: nothing would "
            "move. Is something detached, or under torch.no_grad?"
        )
    return terms


def _check_phase(phase: Phase) -> None:
    if not isinstance(phase.name, str) or not phase.name:
        raise ConfigError(f"A phase's name is a word, not {phase.name!r}.")
    if not callable(phase.loss):
        raise ConfigError(f"Phase {phase.name!r}: loss={phase.loss!r} must be a function (model, batch) -> zoo.Terms.")
    if type(phase.every) is not int or phase.every < 1:
        raise ConfigError(f"Phase {phase.name!r}: every={phase.every!r} must be a whole number, at least 1.")
    if not isinstance(phase.rate, int | float) or not isfinite(phase.rate) or phase.rate < 0:
        raise ConfigError(f"Phase {phase.name!r}: rate={phase.rate!r} must be a number, at least 0.")


def _check_names(what: str, names: object, networks: list[str]) -> None:
    if not isinstance(names, tuple) or any(name not in networks for name in names):
        raise ConfigError(f"{what} {names!r}: give a tuple of names of networks, which are {', '.join(networks)}.")
