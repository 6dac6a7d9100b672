"""From a name and images to what is trained: the model fitted to the data, and its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.data import ImageSet, open_images
from zoo.errors import UnknownName, Unsupported, suggest
from zoo.loading import load
from zoo.model import Model
from zoo.projected import training_recipe
from zoo.recipe import Recipe
from zoo.transfer.choice import FEW, choose
from zoo.transfer.methods import METHODS

WARMUP = 0.5    # thousand images, at most a fifth of the training, in which a fresh critic learns alone
# Without DiffAugment's "color": in short fine-tunes at 32x32 it left grain on the samples, which the others do not.
AUGMENT = ("translation", "cutout")


def prepare(
    name_or_model: str | Model, data: str | Path | ImageSet, method: str, kimg: float, options: Mapping[str, Any]
) -> tuple[Model, ImageSet, Recipe, dict[str, Any]]:
    """Return the model fitted to the data's classes, the images, the recipe and facts for run.json."""
    if not isinstance(method, str) or method not in ("auto", *METHODS):
        names = ["auto", *METHODS]
        raise UnknownName(f"No transfer method {method!r}.{suggest(str(method), names)} Methods: {', '.join(names)}.")
    model = name_or_model if isinstance(name_or_model, Model) else load(name_or_model)
    config = model.config
    images = open_images(
        data, resolution=config.resolution, channels=config.channels, workers=int(options.get("workers") or 0)
    )
    model = _fit_classes(name_or_model, model, images)
    fresh = model.complete()
    recipe = options.get("recipe") or training_recipe(model)
    if critics := tuple(name for name in fresh if name in recipe.critics):
        recipe = replace(recipe, fresh=critics, warmup_kimg=recipe.warmup_kimg or min(WARMUP, kimg / 5))
    chosen, reason = choose(recipe, images, kimg) if method == "auto" else (method, "asked for")
    recipe = METHODS[chosen].apply(model, recipe)
    if recipe.critics and len(images) < FEW and not recipe.augment:
        recipe = replace(recipe, augment=AUGMENT)
    # The average starts at trained weights, so it needs no ramp away from a random start; but in a short fine-tune a
    # half-life of the usual length would keep it at the parent.
    recipe = replace(recipe, ema_rampup=None, ema_kimg=min(recipe.ema_kimg, kimg / 10))
    facts = {"method": chosen, "method_reason": reason, "adapted": changed(model), "fresh": list(fresh)}
    return model, images, recipe, facts


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
