"""The phases that generative adversarial networks share, built from a loss and a way to make fakes.

The losses are data, like the phases that carry them: what they are made of can be read and replaced, so a recipe may
be given another adversarial loss (`with_adversarial`) or lose its penalties (`without_penalties`) from outside. A
plugin's own loss takes part in it as a dataclass with a field `adversarial` or `gamma`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from zoo.errors import ConfigError
from zoo.judged import Judged, Part, joined
from zoo.losses import Adversarial, best
from zoo.penalties import gradient_penalty, squared_gradient
from zoo.recipe import Batch, Loss, Phase, Recipe, Terms
from zoo.schedules import scheduled

if TYPE_CHECKING:
    from zoo.model import Model

Fakes = Callable[["Model", Batch], Tensor]     # (model, batch) -> images [N, C, H, W] made by the live generator
NO_PENALTY = (0.0, 0.0)


def fakes(model: Model, batch: Batch) -> Tensor:
    """Return one fake for each image of the batch, with that image's label."""
    images: Tensor = model.get_submodule("generator")(model.latent(len(batch), batch.noise), batch.labels)
    return images


@dataclass(frozen=True)
class DiscriminatorLoss:
    """The discriminator's loss on reals and fakes; watches both means, which tell who is winning.

    With `gamma`, R1 and R2 are part of the same step (Mescheder et al., 2018, arXiv:1801.04406, eq. 9): gamma / 2
    times the squared gradient on reals plus that on fakes, from the logits that are there already. `parts` are further
    terms of the same step, on the same images and logits: `zoo.regularisers`, `zoo.consistency`.
    """

    adversarial: Adversarial
    make: Fakes = fakes
    gamma: tuple[float, float] = NO_PENALTY      # as training begins and ends, half a cosine between
    parts: tuple[Part, ...] = ()

    def __call__(self, model: Model, batch: Batch) -> Terms:
        gamma = scheduled(*self.gamma, batch.progress)
        judged = Judged(model, batch, self.make)
        fake, real = judged.fake, judged.real
        if gamma:
            real, fake = real.requires_grad_(True), fake.requires_grad_(True)
        on_real, on_fake = judged.on_real, judged.on_fake
        watch = {
            "logits_real": on_real.detach().mean(),
            "logits_fake": on_fake.detach().mean(),
        }
        if self.adversarial.border is not None:      # ADA's overfitting measure r_t (Karras 2020a, eq. 1)
            watch["sign_real"] = (on_real.detach() - self.adversarial.border).sign().mean()
        terms = {"adversarial": self.adversarial.discriminator(on_real, on_fake)}
        if gamma:
            terms["r1"] = 0.5 * gamma * squared_gradient(on_real, real)
            terms["r2"] = 0.5 * gamma * squared_gradient(on_fake, fake)
        return joined(Terms(terms, watch), *(part(judged) for part in self.parts))


@dataclass(frozen=True)
class GeneratorLoss:
    """The generator's loss; `parts` are further terms of the same step, on the same fakes: `zoo.diversity`."""

    adversarial: Adversarial
    make: Fakes = fakes
    parts: tuple[Part, ...] = ()

    def __call__(self, model: Model, batch: Batch) -> Terms:
        judged = Judged(model, batch, self.make, moves=True)
        terms = Terms({"adversarial": deceives(self.adversarial, model, judged.fake, batch)})
        return joined(terms, *(part(judged) for part in self.parts))


@dataclass(frozen=True)
class R1Loss:
    """gamma / 2 times the R1 penalty: the discriminator's squared gradient on reals."""

    gamma: float

    def __call__(self, model: Model, batch: Batch) -> Terms:
        penalty = gradient_penalty(model.get_submodule("discriminator"), batch.images, batch.labels)
        return Terms({"r1": 0.5 * self.gamma * penalty}, {"gradient": penalty.detach()})


@dataclass(frozen=True)
class R2Loss:
    """gamma / 2 times the R2 penalty: the discriminator's squared gradient on fakes."""

    gamma: float
    make: Fakes = fakes

    def __call__(self, model: Model, batch: Batch) -> Terms:
        with torch.no_grad():
            fake = self.make(model, batch)
        penalty = gradient_penalty(model.get_submodule("discriminator"), fake, batch.labels)
        return Terms({"r2": 0.5 * self.gamma * penalty}, {"gradient": penalty.detach()})


def deceives(adversarial: Adversarial, model: Model, fake: Tensor, batch: Batch) -> Tensor:
    """Return the generator's side of a loss for its fakes, one for each image of the batch: a scalar to minimise."""
    discriminator = model.get_submodule("discriminator")
    logits: Tensor = discriminator(fake, batch.labels).float()
    share = adversarial.kept**batch.progress
    if adversarial.paired:
        with torch.no_grad():
            on_real = discriminator(batch.images, batch.labels).float()
        if adversarial.symmetric:
            return adversarial.discriminator(best(logits, share) if share < 1 else logits, on_real)
        logits = logits - on_real
    return adversarial.generator(best(logits, share) if share < 1 else logits)


def discriminator_loss(loss: Adversarial, make: Fakes = fakes) -> Loss:
    """Return the discriminator's loss on reals and fakes."""
    return DiscriminatorLoss(loss, make)


def generator_loss(loss: Adversarial, make: Fakes = fakes) -> Loss:
    """Return the generator's loss."""
    return GeneratorLoss(loss, make)


def r1_loss(gamma: float) -> Loss:
    """Return gamma / 2 times the R1 penalty: the discriminator's squared gradient on reals."""
    return R1Loss(gamma)


def r2_loss(gamma: float, make: Fakes = fakes) -> Loss:
    """Return gamma / 2 times the R2 penalty: the discriminator's squared gradient on fakes."""
    return R2Loss(gamma, make)


def adversarial_phases(
    loss: Adversarial,
    *,
    make: Fakes = fakes,
    generator_rate: float = 1.0,
    discriminator_rate: float = 1.0,
    gamma: tuple[float, float] = NO_PENALTY,
) -> tuple[Phase, ...]:
    """Return the two phases of a plain GAN: the discriminator's turn, then the generator's.

    Args:
        gamma: of R1 and R2 within the discriminator's turn, as training begins and ends.
    """
    judge = DiscriminatorLoss(loss, make, gamma)
    settings: dict[str, float | str] = {"loss": loss.name}
    penalised = {**settings, "gamma": gamma[0], "final_gamma": gamma[1]} if gamma != NO_PENALTY else settings
    return (
        Phase("discriminator", ("discriminator",), judge, rate=discriminator_rate, settings=penalised),
        Phase("generator", ("generator",), GeneratorLoss(loss, make), rate=generator_rate, settings=settings),
    )


def with_adversarial(recipe: Recipe, loss: Adversarial) -> Recipe:
    """Return the recipe with another adversarial loss, in every phase whose loss says which one it uses."""
    return replace(recipe, phases=tuple(
        _with(phase, adversarial=loss, settings={"loss": loss.name}) if _has(phase.loss, "adversarial") else phase
        for phase in recipe.phases
    ))  # fmt: skip


def adversarial_of(recipe: Recipe) -> Adversarial:
    """Return the adversarial loss of the first phase whose loss says which one it uses.

    Raises:
        ConfigError: none does.
    """
    for phase in recipe.phases:
        holder = _holder(phase.loss, "adversarial")
        if holder is not None:
            found: Adversarial = holder.adversarial
            return found
    names = ", ".join(phase.name for phase in recipe.phases)
    raise ConfigError(f"No turn of this recipe ({names}) has an adversarial loss that could be set.")


def without_penalties(recipe: Recipe) -> Recipe:
    """Return the recipe without gradient penalties: phases of R1 or R2 alone are left out, others lose that part."""
    kept = []
    for phase in recipe.phases:
        if isinstance(innermost(phase.loss), R1Loss | R2Loss):
            continue
        if _has(phase.loss, "gamma"):
            settings = {name: value for name, value in phase.settings.items() if not name.endswith("gamma")}
            phase = replace(_with(phase, gamma=NO_PENALTY), settings=settings)
        kept.append(phase)
    return replace(recipe, phases=tuple(kept))


def innermost(loss: Loss) -> Loss:
    """Return what others are wrapped around: a dataclass that plays a loss holds it in its field `loss`."""
    while _holds(loss, "loss"):
        loss = cast("Any", loss).loss
    return loss


def _holds(loss: Loss, name: str) -> bool:
    return is_dataclass(loss) and name in {field.name for field in fields(loss)}


def _holder(loss: Any, name: str) -> Any:
    """Return the outermost of a loss and what it is wrapped around that has a field of this name, or None."""
    while not _holds(loss, name) and _holds(loss, "loss"):
        loss = loss.loss
    return loss if _holds(loss, name) else None


def _has(loss: Loss, name: str) -> bool:
    return _holder(loss, name) is not None


def _with(phase: Phase, *, settings: dict[str, float | str] | None = None, **changes: Any) -> Phase:
    loss = _changed(phase.loss, changes)
    return replace(phase, loss=loss, settings={**phase.settings, **(settings or {})})


def _changed(loss: Any, changes: dict[str, Any]) -> Any:
    own = {name: value for name, value in changes.items() if _holds(loss, name)}
    if _holds(loss, "loss"):
        own["loss"] = _changed(loss.loss, changes)
    return replace(loss, **own) if own else loss
