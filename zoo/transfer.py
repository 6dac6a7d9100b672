"""Transfer methods: how a fine-tune differs from training on. Each is a function from a recipe to a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from torch import nn

from zoo.data import ImageSet, open_images
from zoo.errors import UnknownName, Unsupported, suggest
from zoo.loading import load
from zoo.model import Model
from zoo.projected import training_recipe
from zoo.recipe import Recipe

FEW = 5000      # images; with fewer a critic learns them by heart (Karras 2020a, figure 1), so they are augmented
WARMUP = 0.5    # thousand images, at most a fifth of the training, in which a fresh critic learns alone
OFTEN = 100     # times that each image is shown; from there on its first layers are better left alone
# Without DiffAugment's "color": in short fine-tunes at 32x32 it left grain on the samples, which the others do not.
AUGMENT = ("translation", "cutout")


@dataclass(frozen=True)
class Method:
    """One transfer method."""

    summary: str
    paper: str
    apply: Callable[[Model, Recipe], Recipe]


def full(model: Model, recipe: Recipe) -> Recipe:
    """Move every weight."""
    return recipe


def freeze_d(model: Model, recipe: Recipe) -> Recipe:
    """Let the half of each critic's blocks that lies next to the image stand still.

    Raises:
        Unsupported: the recipe has no critic, or its blocks cannot be told apart.
    """
    if set(recipe.fresh) & set(recipe.critics):
        raise Unsupported("freeze_d keeps what a critic has learnt, and this one is fresh: use method full.")
    if not recipe.critics:
        raise Unsupported(f"{model.architecture} has no critic, so freeze_d has nothing to freeze: use method full.")
    patterns = {name: frozen_patterns(name, model.get_submodule(name)) for name in recipe.critics}
    phases = tuple(
        replace(phase, frozen=(*phase.frozen, *(p for name in phase.trains for p in patterns.get(name, ()))))
        for phase in recipe.phases
    )
    return replace(recipe, phases=phases)


def frozen_patterns(name: str, critic: nn.Module, share: float = 0.5) -> tuple[str, ...]:
    """Return name patterns of the blocks nearest to the image, `share` of them rounded up, and of what comes before.

    A critic lists its parts from the image to the logit; its blocks are the longest of its containers, or else its
    parts themselves.
    """
    children = dict(critic.named_children())
    containers = {
        child: [f"{child}.{inner}" for inner, _ in module.named_children()]
        for child, module in children.items()
        if isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential)
    }
    longest = max(containers, key=lambda child: len(containers[child]), default=None)
    blocks = list(children) if longest is None else containers[longest]
    before = [] if longest is None else list(children)[: list(children).index(longest)]
    frozen = [*before, *blocks[: ceil(share * len(blocks))]]
    return tuple(f"{name}.{part}.*" for part in frozen)


METHODS: dict[str, Method] = {
    "full": Method("train every weight on", "Wang et al., 2018, arXiv:1805.01677", full),
    "freeze_d": Method("freeze the critic's half next to the image", "Mo et al., 2020, arXiv:2002.10964", freeze_d),
}


def choose(recipe: Recipe, images: ImageSet, kimg: float) -> tuple[str, str]:
    """Return the method that "auto" stands for, and why."""
    if not recipe.critics:
        return "full", "the architecture has no critic"
    if recipe.fresh:
        return "full", f"{', '.join(recipe.fresh)} is fresh, so there is nothing in it to freeze"
    shown = round(1000 * kimg / len(images))
    if len(images) < FEW and shown > OFTEN:
        return "freeze_d", f"each of {len(images)} images is shown {shown} times, so the critic would overfit"
    return "full", f"each of {len(images)} images is shown {shown} times, so every weight may move"


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
