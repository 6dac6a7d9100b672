"""Penalties of a critic's slope or a network's weights, as additions."""

from __future__ import annotations

import logging
from dataclasses import replace

from torch import nn

from zoo.additions.contract import Addition, Count, Positive, Weight
from zoo.adversarial import NO_PENALTY, DiscriminatorLoss, R1Loss, R2Loss, innermost
from zoo.errors import ConfigError, Unsupported
from zoo.model import Model
from zoo.parts import with_part
from zoo.recipe import Recipe
from zoo.regularisers import (
    GradientPenalty,
    LeCam,
    Orthogonal,
    SquaredGradient,
    follow_logits,
    remember_logits,
)

say = logging.getLogger("zoo")


def _check_slope(model: Model) -> None:
    """Say so where the slope at one image depends on the others of its batch."""
    critic = model.networks().get("discriminator")
    if critic is not None and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in critic.modules()):
        say.warning("The critic has batch norm, so an image's slope depends on others: switch that off if you can.")


def r1(model: Model, recipe: Recipe, *, gamma: Positive = 1.0, every: Count = 1) -> Recipe:
    """Add gamma / 2 times R1, in place of one that the recipe has."""
    _check_slope(model)
    recipe = _without(recipe, R1Loss)
    return with_part(recipe, SquaredGradient(gamma, "reals", "r1"), every=every)


def r2(model: Model, recipe: Recipe, *, gamma: Positive = 1.0, every: Count = 1) -> Recipe:
    """Add gamma / 2 times R2, in place of one that the recipe has."""
    _check_slope(model)
    recipe = _without(recipe, R2Loss)
    return with_part(recipe, SquaredGradient(gamma, "fakes", "r2"), every=every)


def _without(recipe: Recipe, kind: type) -> Recipe:
    """Return the recipe without turns of one penalty alone.

    Raises:
        ConfigError: a turn has R1 and R2 within it, which have one weight: that is a setting of the recipe's own.
    """
    for phase in recipe.phases:
        loss = innermost(phase.loss)
        if isinstance(loss, DiscriminatorLoss) and loss.gamma != NO_PENALTY:
            raise ConfigError(
                f"The turn {phase.name!r} of this recipe has R1 and R2 already, with gamma {loss.gamma[0]:g} to "
                f"{loss.gamma[1]:g}: set those where the architecture has settings for them."
            )
    kept = tuple(phase for phase in recipe.phases if not isinstance(innermost(phase.loss), kind))
    return replace(recipe, phases=kept)


def gradient_penalty(
    model: Model, recipe: Recipe, *, weight: Positive = 10.0, target: Weight = 1.0, one_sided: bool = False
) -> Recipe:
    """Add WGAN-GP's penalty between reals and fakes."""
    _check_slope(model)
    return with_part(recipe, GradientPenalty(weight, target, one_sided))


def dragan(model: Model, recipe: Recipe, *, weight: Positive = 10.0) -> Recipe:
    """Add DRAGAN's penalty around reals."""
    _check_slope(model)
    return with_part(recipe, GradientPenalty(weight, at="around"))


def lecam(model: Model, recipe: Recipe, *, weight: Positive = 0.3) -> Recipe:
    """Add LeCam regularisation; the model remembers the logits meanwhile."""
    remember_logits(model)
    return with_part(recipe, LeCam(weight), after=follow_logits)


def orthogonal(model: Model, recipe: Recipe, *, weight: Positive = 1e-4) -> Recipe:
    """Add orthogonal regularisation of the generator."""
    if "generator" not in model.networks():
        raise Unsupported(f"orthogonal acts on a generator, and {model.architecture} has none.")
    return with_part(recipe, Orthogonal(weight), trains="generator")


R1 = Addition(
    summary="gamma / 2 times the critic's squared slope on reals, every k-th step",
    failure="training does not converge, the critic grows ever steeper",
    paper="Mescheder et al., 2018, arXiv:1801.04406",
    apply=r1,
)
R2 = Addition(
    summary="gamma / 2 times the critic's squared slope on fakes, every k-th step",
    failure="relativistic training that explodes with R1 alone",
    paper="Mescheder et al., 2018, arXiv:1801.04406; Huang et al., 2025, arXiv:2501.05441",
    apply=r2,
)
GRADIENT_PENALTY = Addition(
    summary="WGAN-GP: holds the critic's slope between reals and fakes near 1",
    failure="a Wasserstein critic without bound, or one that clipping has crippled",
    paper="Gulrajani et al., 2017, arXiv:1704.00028",
    apply=gradient_penalty,
)
DRAGAN = Addition(
    summary="holds the critic's slope around reals near 1",
    failure="sudden collapse where the critic is steep beside the data",
    paper="Kodali et al., 2017, arXiv:1705.07215",
    apply=dragan,
)
LECAM = Addition(
    summary="holds logits near the running mean of the other side's",
    failure="a critic that learns few images by heart",
    paper="Tseng et al., 2021, arXiv:2104.03310",
    apply=lecam,
)
ORTHOGONAL = Addition(
    summary="keeps the generator's weights orthogonal",
    failure="artefacts under truncation, a generator that collapses late",
    paper="Brock et al., 2019, arXiv:1809.11096",
    apply=orthogonal,
)
