"""Consistency of a critic under small changes, as additions."""

from __future__ import annotations

from zoo.additions.contract import Addition, Positive, Weight
from zoo.consistency import RADIUS, Consistency, LatentConsistency, LatentVariety
from zoo.model import Model
from zoo.parts import with_part
from zoo.recipe import Recipe


def cr(model: Model, recipe: Recipe, *, weight: Positive = 10.0) -> Recipe:
    """Add consistency on reals."""
    return with_part(recipe, Consistency(real=weight, fake=0))


def bcr(model: Model, recipe: Recipe, *, real: Positive = 10.0, fake: Positive = 10.0) -> Recipe:
    """Add balanced consistency, on reals and fakes."""
    return with_part(recipe, Consistency(real, fake))


def zcr(
    model: Model, recipe: Recipe, *, critic: Positive = 20.0, generator: Weight = 0.5, radius: Positive = RADIUS
) -> Recipe:
    """Add latent consistency: the critic's part, and the generator's wish for variety."""
    recipe = with_part(recipe, LatentConsistency(critic, radius))
    return with_part(recipe, LatentVariety(generator, radius), trains="generator") if generator else recipe


CR = Addition(
    summary="the critic judges a real as it does when mirrored and shifted",
    failure="a critic that learns few images by heart",
    paper="Zhang et al., 2020, arXiv:1910.12027",
    apply=cr,
)
BCR = Addition(
    summary="the critic judges reals and fakes as it does when mirrored and shifted",
    failure="a critic that learns few images by heart, changes that leak into samples",
    paper="Zhao et al., 2021, arXiv:2002.04724",
    apply=bcr,
)
ZCR = Addition(
    summary="neighbouring latents: the critic judges them alike, the generator keeps them apart",
    failure="samples that hardly vary with z",
    paper="Zhao et al., 2021, arXiv:2002.04724",
    apply=zcr,
)
