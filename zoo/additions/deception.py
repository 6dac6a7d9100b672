"""Adaptive pseudo augmentation as an addition."""

from __future__ import annotations

from zoo.additions.contract import Addition, Positive, Share
from zoo.deception import with_deception
from zoo.model import Model
from zoo.recipe import Recipe


def apa(model: Model, recipe: Recipe, *, target: Share = 0.6, kimg: Positive = 500.0) -> Recipe:
    """Show the critic fakes among the reals, more of them while it overfits."""
    return with_deception(model, recipe, target=target, kimg=kimg)


APA = Addition(
    summary="fakes among the reals, more of them while the critic overfits",
    failure="a critic that learns few images by heart, of a kind that no change leaves natural",
    paper="Jiang et al., 2021, arXiv:2111.06849",
    apply=apa,
    stage="wrapper",
)
