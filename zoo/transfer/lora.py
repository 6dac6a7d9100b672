"""LoRA (Hu et al., 2021, arXiv:2106.09685) for a generator: only low-rank factors beside its weights are trained."""

from __future__ import annotations

from zoo.additions.contract import Count
from zoo.errors import Unsupported
from zoo.lowrank import attach, fixed
from zoo.model import Model
from zoo.recipe import Recipe
from zoo.transfer.method import GENERATOR, Method, generator_of
from zoo.transfer.structure import with_frozen


def lora(model: Model, recipe: Recipe, *, rank: Count = 8, critic: bool = False) -> Recipe:
    """Train W0 + U V for every weight of the generator that is a matrix or a convolution; all else stands still.

    The parent's averaged weights are W0. RUN/model is merged, RUN/delta holds the factors alone.

    Args:
        rank: columns of U at most; a weight [out, rest] has no more than its smaller side.
        critic: whether critics are trained so too; else they are trained in full, and a delta comes without them.

    Raises:
        Unsupported: there is no generator, or a critic that should be trained so is fresh.
    """
    generator_of(model, recipe, "lora")
    fresh = [name for name in recipe.critics if name in (*recipe.fresh, *model.fresh)]
    if critic and fresh:
        raise Unsupported(f"lora:critic=true adds to what a critic has learnt, and {fresh[0]} is fresh: leave it out.")
    networks = (GENERATOR, *(recipe.critics if critic else ()))
    trained = dict.fromkeys(name for phase in recipe.phases for name in phase.trains)
    model.follow(recipe.averaged)
    attach(model, networks, tuple(name for name in trained if name not in networks), rank)
    return with_frozen(recipe, {
        network: [f"{network}.{name}" for name in fixed(model.get_submodule(network))] for network in networks
    })  # fmt: skip


LORA = Method("train low-rank factors beside the generator's weights", "Hu et al., 2021, arXiv:2106.09685", lora)
