"""What judges an autoencoder's images while it trains, beside their error: as latent diffusion trains its autoencoder.

Neither judge is published: the frozen network never is part of the model, and the critic is let go as training ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from zoo.additions.contract import Addition, Count, Positive, Share
from zoo.adversarial import DiscriminatorLoss
from zoo.errors import Unsupported
from zoo.losses import adversarial
from zoo.model import Model
from zoo.patches import judge_patches
from zoo.perceptual import Perceptual
from zoo.recipe import Loss, Phase, Recipe
from zoo_vae.loss import CRITIC, AutoencoderLoss, Deceiving, Delayed, PerceptualPart, Reconstructed

CRITIC_LR = 2e-4      # of Isola et al.; or the autoencoder's, where that is lower


def perceptual(
    model: Model,
    recipe: Recipe,
    *,
    weight: Positive = 1.0,
    network: str = "tf_efficientnet_lite0",
    size: Annotated[int, Field(ge=32, le=1024)] = 64,
) -> Recipe:
    """Add the perceptual distance of images and reconstructions to the autoencoder's turn.

    Args:
        weight: beside the error of the images; 1 in VQGAN and latent diffusion.
        network: timm's name of the frozen network.
        size: pixels that smaller images are brought to.
    """
    at = _turn(model, recipe, "perceptual")
    part = PerceptualPart(Perceptual(network, size=size), weight)
    settings: dict[str, float | str] = {"perceptual": weight, "network": network, "size": size}
    return _with(recipe, at, lambda own: replace(own, parts=(*own.parts, part)), settings)


def patch_critic(
    model: Model,
    recipe: Recipe,
    *,
    weight: Positive = 0.5,
    start: Share = 0.25,
    loss: str = "hinge",
    width: Count = 64,
    layers: Annotated[int, Field(ge=1, le=6)] | None = None,
) -> Recipe:
    """Give the model a critic of patches, the recipe a turn that trains it, and the autoencoder a term to deceive it.

    Args:
        weight: of the critic, beside all else at the decoder's last layer; 0.5 in latent diffusion.
        start: share of the training before the critic learns and counts.
        loss: a name of `zoo.losses.ADVERSARIAL`.
        width, layers: of the critic: see `zoo.patches.judge_patches`.
    """
    at = _turn(model, recipe, "patch_critic")
    judge_patches(model, width=width, layers=layers)
    chosen = adversarial(loss)
    show = _innermost(recipe.phases[at].loss).show
    settings: dict[str, float | str] = {"loss": chosen.name, "start": start}
    recipe = _with(recipe, at, lambda own: Deceiving(own, chosen, weight, start), {**settings, "adversarial": weight})
    critic = Phase(
        CRITIC,
        (CRITIC,),
        Delayed(DiscriminatorLoss(chosen, Reconstructed(show)), start),
        rate=min(1.0, CRITIC_LR / recipe.lr),
        settings=settings,
    )
    return replace(recipe, phases=(*recipe.phases, critic), critics=(*recipe.critics, CRITIC))


def _turn(model: Model, recipe: Recipe, what: str) -> int:
    """Return the index of the turn in which an autoencoder learns to show images.

    Raises:
        Unsupported: there is none.
    """
    for index, phase in enumerate(recipe.phases):
        if _holds(phase.loss):
            return index
    names = ", ".join(phase.name for phase in recipe.phases)
    raise Unsupported(f"{what} judges the reconstructions of the architecture vae; {model.architecture} has: {names}.")


def _holds(loss: Any) -> bool:
    return isinstance(loss, AutoencoderLoss) or (hasattr(loss, "loss") and _holds(loss.loss))


def _innermost(loss: Any) -> AutoencoderLoss:
    return loss if isinstance(loss, AutoencoderLoss) else _innermost(loss.loss)


def _with(
    recipe: Recipe, at: int, change: Callable[[AutoencoderLoss], Loss], settings: dict[str, float | str]
) -> Recipe:
    phases = list(recipe.phases)
    phase = phases[at]
    phases[at] = replace(phase, loss=_changed(phase.loss, change), settings={**phase.settings, **settings})
    return replace(recipe, phases=tuple(phases))


def _changed(loss: Any, change: Callable[[AutoencoderLoss], Loss]) -> Any:
    """Return the loss with the autoencoder's, which others may be wrapped around, changed."""
    return change(loss) if isinstance(loss, AutoencoderLoss) else replace(loss, loss=_changed(loss.loss, change))


PERCEPTUAL = Addition(
    summary="the features that a frozen network sees in images and reconstructions must be alike; for autoencoders",
    failure="blur",
    paper="Zhang et al., 2018, arXiv:1801.03924",
    apply=perceptual,
)
PATCH_CRITIC = Addition(
    summary="a critic of patches that reconstructions must deceive; for autoencoders",
    failure="blur",
    paper="Esser et al., 2021, arXiv:2012.09841",
    apply=patch_critic,
    stage="critic",
)
