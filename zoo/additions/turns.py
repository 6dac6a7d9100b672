"""How turns are played, as additions: what wraps a loss, what follows a step, how often a network moves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated

from pydantic import Field

from zoo.additions.contract import Addition, Positive, Share
from zoo.adversarial import adversarial_of, with_adversarial
from zoo.errors import Unsupported
from zoo.instance_noise import Noisy
from zoo.losses import top_k as best_only
from zoo.model import Model
from zoo.parts import with_projection, with_wrapped
from zoo.penalties import clip_weights
from zoo.recipe import Recipe
from zoo.spectral import with_spectral_norm
from zoo.unrolled import Unrolled

CRITIC = ("discriminator",)
GENERATOR = ("generator",)


def _check_plays(model: Model, recipe: Recipe, what: str, *networks: str) -> None:
    """Refuse a recipe in which no turn trains one of the networks.

    Raises:
        Unsupported: naming it.
    """
    moved = sorted({name for phase in recipe.phases for name in phase.trains})
    for network in networks:
        if network not in moved:
            raise Unsupported(f"{what} acts on a {network}, and {model.architecture} trains: {', '.join(moved)}.")


def top_k(model: Model, recipe: Recipe, *, kept: Annotated[float, Field(gt=0, le=1)] = 0.5) -> Recipe:
    """Let the generator learn from its best fakes alone, fewer and fewer."""
    return with_adversarial(recipe, best_only(adversarial_of(recipe), kept))


def instance_noise(model: Model, recipe: Recipe, *, first: Positive = 0.1, until: Share = 1.0) -> Recipe:
    """Put noise on all that the critic sees, less and less."""
    _check_plays(model, recipe, "instance_noise", *CRITIC, *GENERATOR)
    return with_wrapped(recipe, lambda loss: Noisy(loss, first, until), trains=(*CRITIC, *GENERATOR))


def unrolled(
    model: Model, recipe: Recipe, *, steps: Annotated[int, Field(ge=1, le=50)] = 5, rate: Positive = 0.01
) -> Recipe:
    """Let the generator's first turn see how the critic would answer."""
    loss = adversarial_of(recipe)
    at = next((i for i, phase in enumerate(recipe.phases) if phase.trains == GENERATOR), None)
    if at is None:
        raise Unsupported(f"unrolled needs a turn that trains a generator alone, and {model.architecture} has none.")
    phases = list(recipe.phases)
    phases[at] = replace(phases[at], loss=Unrolled(phases[at].loss, loss, steps, rate))
    return replace(recipe, phases=tuple(phases))


def spectral_norm(model: Model, recipe: Recipe) -> Recipe:
    """Divide the critic's weights by their largest singular value."""
    _check_plays(model, recipe, "spectral_norm", *CRITIC)
    return with_spectral_norm(recipe)


def weight_clipping(model: Model, recipe: Recipe, *, limit: Positive = 0.01) -> Recipe:
    """Clip the critic's weights after each of its steps."""
    _check_plays(model, recipe, "weight_clipping", *CRITIC)
    return with_projection(recipe, "discriminator", partial(clip_weights, bound=limit), "weight_clipping")


def critic_steps(model: Model, recipe: Recipe, *, n: Annotated[int, Field(ge=2, le=100)] = 5) -> Recipe:
    """Let the generator move in each n-th step only."""
    _check_plays(model, recipe, "critic_steps", *CRITIC, *GENERATOR)
    return replace(recipe, phases=tuple(
        phase if "discriminator" in phase.trains else replace(phase, every=n * phase.every) for phase in recipe.phases
    ))  # fmt: skip


TOP_K = Addition(
    summary="the generator learns from its best fakes, a share that falls to `kept`",
    failure="gradients of hopeless samples; may cost variety",
    paper="Sinha et al., 2020, arXiv:2002.06224",
    apply=top_k,
    stage="loss",
)
INSTANCE_NOISE = Addition(
    summary="noise on all that the critic sees, less and less",
    failure="a critic that wins early, as nothing overlaps",
    paper="Sonderby et al., 2017, arXiv:1610.04490",
    apply=instance_noise,
    stage="wrapper",
)
UNROLLED = Addition(
    summary="the generator sees how its critic would answer",
    failure="oscillation from mode to mode",
    paper="Metz et al., 2017, arXiv:1611.02163",
    apply=unrolled,
    stage="wrapper",
)
SPECTRAL_NORM = Addition(
    summary="the critic's weights divided by their largest singular value",
    failure="a critic that grows ever steeper",
    paper="Miyato et al., 2018, arXiv:1802.05957",
    apply=spectral_norm,
    stage="wrapper",
)
WEIGHT_CLIPPING = Addition(
    summary="the critic's weights clipped after each step; prefer gradient_penalty",
    failure="a Wasserstein critic without bound",
    paper="Arjovsky et al., 2017, arXiv:1701.07875",
    apply=weight_clipping,
    stage="wrapper",
)
CRITIC_STEPS = Addition(
    summary="n steps of the critic for each of the generator",
    failure="a Wasserstein critic that lags behind",
    paper="Arjovsky et al., 2017, arXiv:1701.07875",
    apply=critic_steps,
    stage="schedule",
)
