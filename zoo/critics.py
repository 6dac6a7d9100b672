"""What may stand in for an architecture's own discriminator, by kind, so that a model with one is saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from zoo.errors import ConfigError, Unsupported
from zoo.model import Model
from zoo.recipe import Recipe

NETWORK = "discriminator"
FIRST = "projected"      # what a configuration that says no kind is: there was one alone
KINDS = {      # `kind` in config.json -> where its `CriticKind` is
    "projected": "zoo.projected:PROJECTED",
    "packed": "zoo.packing:PACKED",
    "minibatch_std": "zoo.minibatch_std:MINIBATCH_STD",
    "patch": "zoo.patches:PATCH",
}


@dataclass(frozen=True)
class CriticKind:
    """One kind of critic.

    Args:
        Config: what config.json may say of one; strict and frozen, with a field `kind`.
        build: (model, config) -> the network, with random weights, on the default device.
        recipe: (recipe of the architecture) -> that of a model with such a critic.
        needs_own: whether the architecture must have a discriminator, which this one replaces.
    """

    Config: type[BaseModel]
    build: Callable[[Model, Any], nn.Module]
    recipe: Callable[[Recipe], Recipe] = lambda recipe: recipe
    needs_own: bool = True


def attach(model: Model, config: Mapping[str, object]) -> Model:
    """Give a model the critic of a configuration, as config.json holds it, on the model's device.

    Raises:
        Unsupported, ConfigError, UnknownName: the kind, its settings or the architecture do not allow it.
    """
    critic = checked(model, config)
    return wear(model, critic, _kind(config.get("kind", FIRST)).build)


def checked(model: Model, config: Mapping[str, object]) -> BaseModel:
    """Return a critic's configuration, if it fits the model.

    Raises:
        Unsupported, ConfigError: as `attach`.
    """
    kind = _kind(config.get("kind", FIRST))
    if kind.needs_own and NETWORK not in model.networks() and NETWORK not in model.absent:
        name = model.architecture or type(model).__name__
        raise Unsupported(f"{name} has no discriminator that another could replace.")
    try:
        return kind.Config(**dict[str, Any](config))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"critic: {place}={str(first['input'])[:60]!r}: {first['msg']}.") from error


def check_own(model: Model, purpose: str) -> None:
    """Refuse a model whose discriminator is another than its architecture's.

    Args:
        purpose: what its own is wanted for.

    Raises:
        Unsupported: with the kind that stands in for it.
    """
    if model.critic is not None:
        name, kind = model.architecture or type(model).__name__, getattr(model.critic, "kind", FIRST)
        raise Unsupported(
            f"{name} has a critic of the kind {kind!r}, and no discriminator of its own that could {purpose}: "
            "keep one of the two."
        )


def wear(model: Model, critic: BaseModel, build: Callable[[Model, Any], nn.Module]) -> Model:
    """Put the network that `build` makes of a configuration in the place of the model's discriminator."""
    with torch.device(model.device):
        built = build(model, critic)
    model.absent = tuple(name for name in model.absent if name != NETWORK)
    model.add_module(NETWORK, built.train(model.training))
    model.critic = critic
    return model


def mark_fresh(model: Model) -> Model:
    """Note that a model's critic knows nothing yet, and return the model."""
    model.fresh = tuple(sorted({*model.fresh, NETWORK}))
    return model


def training_recipe(model: Model) -> Recipe:
    """Return how a model is trained unless told otherwise: its own recipe, fitted to its critic."""
    recipe = model.recipe()
    return recipe if model.critic is None else _kind(getattr(model.critic, "kind", None)).recipe(recipe)


def described(model: Model) -> dict[str, Any] | None:
    """Return a model's critic as config.json holds it; None for the architecture's own."""
    return None if model.critic is None else model.critic.model_dump(mode="json")


def _kind(name: object) -> CriticKind:
    if name not in KINDS:
        raise ConfigError(f"critic: kind={str(name)[:60]!r}: possible are {', '.join(KINDS)}.")
    module, _, attribute = KINDS[str(name)].partition(":")
    found: CriticKind = getattr(import_module(module), attribute)
    return found
