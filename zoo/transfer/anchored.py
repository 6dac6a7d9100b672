"""Methods that hold weights near the parent's: weight / 2 sum_i F_i (theta_i - parent_i)^2 beside the losses.

- L2-SP (Li et al., 2018, arXiv:1802.01483, the term for weights that the parent has): F_i = 1 for every weight.
- EWC (Li et al., 2020, arXiv:2012.02780): F is the diagonal of the Fisher information (`fisher`), here over its mean,
  so that the weight means as much as L2-SP's does whatever the critic and the size of the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from zoo.additions.contract import Count, Positive
from zoo.adversarial import Fakes, fakes, innermost
from zoo.errors import Unsupported
from zoo.model import Model
from zoo.noise import Noise, key
from zoo.parts import Together
from zoo.recipe import Batch, Recipe, Terms
from zoo.transfer.method import GENERATOR, Method, generator_of
from zoo.transfer.source import Source, learnt
from zoo.transfer.structure import drawers, in_evaluation

# A weight is held where lambda is about its gradient over how far it moves. In 100 steps that is some 1 for the bundled
# DCGAN, whose weights are small, and 0.01 for the bundled StyleGAN, whose learning rate is equalised.
WEIGHT = 0.1


@dataclass(frozen=True)
class Anchored:
    """weight / 2 sum_i F_i (theta_i - source_i)^2, a loss of its own.

    Args:
        name: of the term.
        source: parameter name -> the parent's value.
        importance: parameter name -> F, of the same shape; None: 1 everywhere.
    """

    name: str
    weight: float
    source: Source
    importance: Source | None = None

    def __call__(self, model: Model, batch: Batch) -> Terms:
        parameters = dict(model.named_parameters())
        importance = None if self.importance is None else self.importance.on(model.device)
        distances = []
        for name, kept in self.source.on(model.device).items():
            squares = (parameters[name] - kept).square()
            distances.append((squares if importance is None else squares * importance[name]).sum())
        distance = torch.stack(distances).sum()
        return Terms({self.name: 0.5 * self.weight * distance}, {f"{self.name}_distance": distance.detach()})


def anchored(
    recipe: Recipe, name: str, weight: float, kept: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None = None
) -> Recipe:
    """Return the recipe with weights held near what they are now, once a step of each player that moves some of them.

    Args:
        kept: parameter name -> its value now.
        importance: parameter name -> F; None: 1 everywhere.
    """
    phases = list(recipe.phases)
    for trains in dict.fromkeys(phase.trains for phase in phases):
        mine = {each: value for each, value in kept.items() if each.split(".")[0] in trains}
        if not mine:
            continue
        least = min(phase.every for phase in phases if phase.trains == trains)      # its turns have weight 1
        at = next(i for i, phase in enumerate(phases) if phase.trains == trains and phase.every == least)
        source = Source(mine)
        weighed = None if importance is None else Source({each: importance[each] for each in mine})
        settings = {**phases[at].settings, name: weight, "source": source.digest}
        loss = Together(phases[at].loss, Anchored(name, weight, source, weighed))
        phases[at] = replace(phases[at], loss=loss, settings=settings)
    return replace(recipe, phases=tuple(phases))


def l2_sp(model: Model, recipe: Recipe, *, weight: Positive = WEIGHT, critic: bool = True) -> Recipe:
    """Hold every weight near the parent's: weight / 2 times the squared distance.

    Args:
        critic: whether critics are held too; fresh networks and re-initialised tensors never are.
    """
    critics = tuple(name for name in recipe.critics if critic)
    kept = learnt(model, (*drawers(recipe), *critics))
    if not kept:
        raise Unsupported("l2_sp holds weights near the parent's, and all of these are fresh: use method full.")
    return anchored(recipe, "l2_sp", weight, kept)


def ewc(model: Model, recipe: Recipe, *, weight: Positive = WEIGHT, samples: Count = 128) -> Recipe:
    """Hold each weight of the generator near the parent's, as firmly as its Fisher information says.

    Args:
        weight: of F over its mean; the paper's 5e8 is for F itself, whose squared gradients are small.
        samples: that the Fisher information is estimated from; each costs a backward pass when training begins.

    Raises:
        Unsupported: there is no generator, or no critic that has judged it.
    """
    generator_of(model, recipe, "ewc")
    critics = [name for name in recipe.critics if name not in (*recipe.fresh, *model.fresh)]
    if not critics:
        raise Unsupported(
            "ewc weighs the generator's weights by the critic that it was trained with, and these weights came without "
            "or with a fresh one: use method l2_sp."
        )
    kept = learnt(model, (GENERATOR,))
    return anchored(recipe, "ewc", weight, kept, relative(fisher(model, kept, samples, made_by(recipe), critics[0])))


def fisher(
    model: Model, parameters: Mapping[str, nn.Parameter], samples: int, make: Fakes, critic: str
) -> dict[str, Tensor]:
    """Return F_i = E_z[(d l(z) / d theta_i)^2] for parameters of a generator, where l(z) = sp(-D(G(z))).

    l is -log of the probability that the critic gives a sample to be real: the generator's own, as the likelihood that
    the paper needs is not to be had. Each sample is judged alone and squared before the mean, both networks are in
    evaluation, and chance is keyed, so that the same weights give the same F. Classes are drawn uniformly.
    """
    names, values = list(parameters), list(parameters.values())
    sums = [torch.zeros_like(value) for value in values]
    generator, judge, size = model.get_submodule(GENERATOR), model.get_submodule(critic), model.config.resolution
    blank = torch.zeros(1, model.config.channels, size, size, device=model.device)      # says how many fakes, no more
    with in_evaluation(generator), in_evaluation(judge), torch.enable_grad():
        for index in range(samples):
            noise = Noise(key("fisher", index), device=model.device)
            classes = model.config.num_classes
            labels = nn.functional.one_hot(noise.integers(classes, 1), classes).float() if classes else None
            fake = make(model, Batch(blank, labels, noise))
            loss = softplus(-judge(fake, labels).float()).mean()
            gradients = torch.autograd.grad(loss, values, allow_unused=True)
            for total, gradient in zip(sums, gradients):
                if gradient is not None:
                    total.addcmul_(gradient, gradient, value=1 / samples)
    return dict(zip(names, sums))


def relative(importance: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return F over its mean over all weights; zeros stay zeros where all are."""
    count = sum(value.numel() for value in importance.values())
    mean = torch.stack([value.sum() for value in importance.values()]).sum() / count
    return {name: value / mean.clamp_min(torch.finfo(mean.dtype).tiny) for name, value in importance.items()}


def made_by(recipe: Recipe) -> Fakes:
    """Return how a recipe's turns make fakes, such as with mixed styles."""
    makes = (getattr(innermost(phase.loss), "make", None) for phase in recipe.phases)
    return next((make for make in makes if make is not None), fakes)


L2_SP = Method("hold every weight near the parent's", "Li et al., 2018, arXiv:1802.01483", l2_sp)
EWC = Method(
    "hold the generator's weights near the parent's, the important ones more", "Li et al., 2020, arXiv:2012.02780", ewc
)
