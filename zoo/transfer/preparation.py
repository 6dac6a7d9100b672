"""From a name and images to what is trained: the model fitted to the data, and its recipe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.critics import training_recipe
from zoo.data import ImageSet, open_images
from zoo.errors import Unsupported
from zoo.launch import world
from zoo.loading import load
from zoo.model import Model
from zoo.recipe import Recipe
from zoo.transfer.choice import FEW, SLOW, choose, short_batch, slowed
from zoo.transfer.methods import METHODS, asked

say = logging.getLogger("zoo")
WARMUP = 0.5    # thousand images, at most a fifth of the training, in which a fresh critic learns alone
# Without DiffAugment's "color": in short fine-tunes at 32x32 it left grain on the samples, which the others do not.
AUGMENT = ("translation", "cutout")


def prepare(
    name_or_model: str | Model,
    data: str | Path | ImageSet,
    method: str,
    kimg: float,
    options: Mapping[str, Any],
    chosen_by_user: Callable[[Model, Recipe], Recipe],
) -> tuple[Model, ImageSet, Recipe, dict[str, Any]]:
    """Return the model fitted to the data's classes, the images, the recipe and facts for run.json.

    Args:
        chosen_by_user: gives a model's recipe the settings and additions that were asked for.
    """
    name, given = asked(method)
    model = name_or_model if isinstance(name_or_model, Model) else load(name_or_model)
    config = model.config
    images = open_images(
        data, resolution=config.resolution, channels=config.channels, workers=int(options.get("workers") or 0)
    )
    model = _fit_classes(name_or_model, model, images)
    model.complete()
    recipe = chosen_by_user(model, _begun(model, kimg, options))
    fresh = model.fresh
    if critics := tuple(name for name in fresh if name in recipe.critics):
        recipe = replace(recipe, fresh=critics, warmup_kimg=recipe.warmup_kimg or min(WARMUP, kimg / 5))
    reason = "asked for"
    if name == "auto":
        name, reason = choose(recipe, images, kimg)
        if (slower := slowed(model, recipe)) is not None:
            recipe, reason = slower, f"{reason}; the others learn at {SLOW:g} of their rate"
        say.warning("Method %s: %s.", name, reason)
    recipe = METHODS[name].apply(model, recipe, **given)
    if recipe.critics and len(images) < FEW and not recipe.augment:
        recipe = replace(recipe, augment=AUGMENT)
    # The average starts at trained weights, so it needs no ramp away from a random start; but in a short fine-tune a
    # half-life of the usual length would keep it at the parent.
    recipe = replace(recipe, ema_rampup=None, ema_kimg=min(recipe.ema_kimg, kimg / 10))
    facts = {"method": name, "method_reason": reason, "method_options": given, "adapted": changed(model),
             "fresh": list(fresh)}  # fmt: skip
    return model, images, recipe, facts


def _begun(model: Model, kimg: float, options: Mapping[str, Any]) -> Recipe:
    """Return the recipe to begin with: the given one, or the model's own; a batch that nobody gave suits the length."""
    given: Recipe | None = options.get("recipe")
    recipe = given or training_recipe(model)
    if given or isinstance(options.get("batch"), int) or "batch" in (options.get("settings") or {}):
        return recipe
    batch = short_batch(recipe.batch, kimg, world() * options.get("accumulate", 1))
    if batch != recipe.batch:
        say.warning("Batch %d, as %g kimg would be few steps with the recipe's %d.", batch, kimg, recipe.batch)
    return replace(recipe, batch=batch)


def changed(model: Model) -> dict[str, str]:
    """Return the tensors that adaptation did not simply copy."""
    return {name: what for name, what in model.adapted.items() if what != "copied"}


def _fit_classes(name_or_model: str | Model, model: Model, images: ImageSet) -> Model:
    classes = max(1, len(images.classes)) if images.labels is not None else 1
    if model.config.num_classes in (0, classes):
        return model
    if isinstance(name_or_model, str):
        return load(name_or_model, adapt=True, num_classes=classes)
    raise Unsupported(
        f"The model has {model.config.num_classes} classes, {images.name} has {classes}: "
        f"load it with adapt=True, num_classes={classes} (--set num_classes={classes} on the command line)."
    )
