"""Progressive growing as an addition."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zoo.additions.contract import Addition
from zoo.growing import with_growth
from zoo.model import Model
from zoo.recipe import Recipe

Part = Annotated[float, Field(gt=0, lt=1)]


def progressive(
    model: Model,
    recipe: Recipe,
    *,
    first: Annotated[int, Field(ge=4, le=1024)] = 8,
    until: Part = 0.5,
    fade: Annotated[float, Field(gt=0, le=1)] = 0.5,
) -> Recipe:
    """Train in stages from `first` pixels on; the network is whole after a share `until` of the training."""
    return with_growth(model, recipe, first=first, until=until, fade=fade)


PROGRESSIVE = Addition(
    summary="small images first; blocks for larger ones fade in",
    failure="large images that do not come together",
    paper="Karras et al., 2018, arXiv:1710.10196",
    apply=progressive,
    stage="schedule",
)
