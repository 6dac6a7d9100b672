"""What makes a generator pay for samples that are alike, as additions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zoo.additions.contract import Addition, Positive
from zoo.diversity import Bures, FeatureMatching, ModeSeeking
from zoo.errors import ConfigError
from zoo.minibatch_std import judge_groups
from zoo.model import Model
from zoo.packing import pack
from zoo.parts import with_part
from zoo.recipe import Recipe


def pacgan(model: Model, recipe: Recipe, *, m: Annotated[int, Field(ge=2, le=64)] = 2) -> Recipe:
    """Give the model a fresh critic that judges packs of m images at once."""
    if recipe.batch % m:
        raise ConfigError(f"pacgan:m={m} does not divide the batch of {recipe.batch}: give another --batch or m.")
    pack(model, m)
    return recipe


def minibatch_std(model: Model, recipe: Recipe, *, group: Annotated[int, Field(ge=2, le=1024)] = 4) -> Recipe:
    """Give the model a fresh critic that sees the standard deviation of each pixel over a group of images."""
    if recipe.batch < 2:
        raise ConfigError("minibatch_std compares images, and a batch of 1 has none to compare: give a larger --batch.")
    judge_groups(model, group)
    return recipe


def mode_seeking(model: Model, recipe: Recipe, *, weight: Positive = 1.0) -> Recipe:
    """Add the mode-seeking term."""
    return with_part(recipe, ModeSeeking(weight), trains="generator")


def bures(model: Model, recipe: Recipe, *, weight: Positive = 1.0) -> Recipe:
    """Add the Bures distance of the critic's features."""
    return with_part(recipe, Bures(weight), trains="generator")


def feature_matching(model: Model, recipe: Recipe, *, weight: Positive = 1.0) -> Recipe:
    """Add the distance of the critic's mean features."""
    return with_part(recipe, FeatureMatching(weight), trains="generator")


PACGAN = Addition(
    summary="a fresh critic that judges m images at once",
    failure="mode collapse",
    paper="Lin et al., 2018, arXiv:1712.04086",
    apply=pacgan,
    stage="critic",
)
MINIBATCH_STD = Addition(
    summary="a fresh critic that sees how much each pixel varies over a group of images",
    failure="mode collapse, samples of little variety",
    paper="Karras et al., 2018, arXiv:1710.10196; Salimans et al., 2016, arXiv:1606.03498",
    apply=minibatch_std,
    stage="critic",
)
MODE_SEEKING = Addition(
    summary="two latents far apart must give two images far apart",
    failure="mode collapse of conditional models",
    paper="Mao et al., 2019, arXiv:1903.05628",
    apply=mode_seeking,
)
BURES = Addition(
    summary="the critic's features of fakes must vary as those of reals do",
    failure="mode collapse",
    paper="De Meulemeester et al., 2021, arXiv:2006.09096",
    apply=bures,
)
FEATURE_MATCHING = Addition(
    summary="the critic's features of fakes must have the mean of those of reals",
    failure="a generator that chases its critic",
    paper="Salimans et al., 2016, arXiv:1606.03498",
    apply=feature_matching,
)
