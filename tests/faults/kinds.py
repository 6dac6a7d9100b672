"""Tiny trainings of every kind, which the scripts and tests about faults disturb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import zoo
from zoo.data import ImageSet, open_images
from zoo.noise import Noise, key
from zoo.recipe import Batch, Terms

STEPS, BATCH = 20, 4
SCHEDULE = {"tick_kimg": 0.012, "sample_kimg": 0.044, "checkpoint_kimg": 0.016, "keep": 2}      # steps 3, 11 and 4
DCGAN = {"resolution": 16, "latent": 4, "generator_width": 4, "discriminator_width": 4}
STYLEGAN = {"resolution": 8, "latent": 8, "w": 8, "mapping_layers": 2, "channel_base": 64, "channel_max": 8}
VAE = {"resolution": 8, "width": 4, "widest": 8, "latent": 4, "prior_width": 8, "prior_steps": 2}
ADA = {"augment": ("ada",), "ada_kimg": 0.1}


@dataclass(frozen=True)
class Break:
    """Where and how the loss of one phase breaks."""

    phase: str
    steps: tuple[int, ...]
    how: Callable[[nn.Module, Terms], Terms]
    passing: bool = False            # only with the chance that the training began with: over after a rollback
    rank: int | None = None          # only in that process


@dataclass(frozen=True)
class Kind:
    """One kind of training."""

    name: str
    architecture: str
    config: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    processes: int = 1
    breaks: Break | None = None


def nan(model: nn.Module, terms: Terms) -> Terms:
    """Make every term NaN."""
    return Terms({name: value * float("nan") for name, value in terms.minimise.items()}, terms.watch)


def infinite(model: nn.Module, terms: Terms) -> Terms:
    """Make every term infinite."""
    return Terms({name: value + float("inf") for name, value in terms.minimise.items()}, terms.watch)


def steep(model: nn.Module, terms: Terms) -> Terms:
    """Leave the terms as they are and make the gradients infinite."""
    moved = sum(((p - p.detach()).sum() for p in model.parameters() if p.requires_grad), torch.zeros(()))
    return Terms({name: value + moved * 3e38 * 10 for name, value in terms.minimise.items()}, terms.watch)


KINDS = (
    Kind("dcgan, translation", "dcgan", DCGAN, {"settings": {"augment": ("translation", "cutout")}}),
    Kind("stylegan, path length", "stylegan", STYLEGAN),
    Kind("dcgan of classes, mirrored", "dcgan", {**DCGAN, "num_classes": 8}, {"settings": {"mirror": True}}),
    Kind("stylegan, ADA, 2 workers", "stylegan", STYLEGAN, {"settings": ADA, "workers": 2}),
    Kind("vae", "vae", VAE),
    Kind("dcgan, ADA, accumulated", "dcgan", DCGAN, {"settings": ADA, "accumulate": 2}),
    Kind("stylegan of classes, accumulated", "stylegan", {**STYLEGAN, "num_classes": 8}, {"accumulate": 2}),
    Kind("dcgan that goes back twice", "dcgan", DCGAN, {"patience": 2},
         breaks=Break("generator", (6, 7, 13, 14), nan, passing=True)),
    Kind("dcgan, ADA, 2 processes", "dcgan", DCGAN, {"settings": ADA}, processes=2),
    Kind("stylegan, color, 2 workers, accumulated", "stylegan", STYLEGAN,
         {"settings": {"augment": ("color",)}, "accumulate": 2, "workers": 2}),
)  # fmt: skip


def train(
    kind: Kind, out: Path, *, steps: int = STEPS, data: str | Path | ImageSet | None = None, **options: Any
) -> zoo.Run:
    """Train from the newest checkpoint, or from the beginning: the same command each time."""
    torch.manual_seed(0)
    model = zoo.create(kind.architecture, **kind.config)
    recipe = model.recipe()
    if kind.breaks is not None:
        recipe = broken(recipe, kind.breaks, steps)
    if data is None:      # with workers, decoded by threads of this process
        data = "emoji" if "workers" in kind.options else emoji(model.config.resolution)
    return zoo.train(model, data, kimg=steps * BATCH / 1000, batch=BATCH, out=out, resume=True, recipe=recipe,
                     **{**SCHEDULE, **kind.options, **options})  # fmt: skip


def broken(recipe: zoo.Recipe, breaks: Break, steps: int) -> zoo.Recipe:
    """Return a recipe, for a training of so many steps, in which the loss of one phase breaks."""
    index = [phase.name for phase in recipe.phases].index(breaks.phase)
    phase = recipe.phases[index]

    def loss(model: Any, batch: Batch) -> Terms:
        step = round(batch.progress * steps)
        first = batch.noise.number() == Noise(key(0, step, "phase", index)).number()      # of the chance of seed 0
        terms = phase.loss(model, batch)
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        hit = step in breaks.steps and (first or not breaks.passing) and breaks.rank in (None, rank)
        return breaks.how(model, terms) if hit else terms

    phases = (*recipe.phases[:index], replace(phase, loss=loss), *recipe.phases[index + 1 :])
    return replace(recipe, phases=phases)


@cache
def emoji(resolution: int) -> ImageSet:
    """Return the images, decoded once for all processes that are forked later; workers would be threads."""
    return open_images("emoji", resolution=resolution, channels=3)
