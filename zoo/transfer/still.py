"""Methods that let a part of the networks stand still, chosen by how these are built and not by their names."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from torch import nn

from zoo.errors import Unsupported
from zoo.model import Model
from zoo.recipe import Recipe
from zoo.transfer.method import Method


def freeze_d(model: Model, recipe: Recipe) -> Recipe:
    """Let the half of each critic's blocks that lies next to the image stand still.

    Raises:
        Unsupported: the recipe has no critic, or its blocks cannot be told apart.
    """
    if set(recipe.fresh) & set(recipe.critics):
        raise Unsupported("freeze_d keeps what a critic has learnt, and this one is fresh: use method full.")
    if not recipe.critics:
        raise Unsupported(f"{model.architecture} has no critic, so freeze_d has nothing to freeze: use method full.")
    patterns = {name: frozen_patterns(name, model.get_submodule(name)) for name in recipe.critics}
    phases = tuple(
        replace(phase, frozen=(*phase.frozen, *(p for name in phase.trains for p in patterns.get(name, ()))))
        for phase in recipe.phases
    )
    return replace(recipe, phases=phases)


def frozen_patterns(name: str, critic: nn.Module, share: float = 0.5) -> tuple[str, ...]:
    """Return name patterns of the blocks nearest to the image, `share` of them rounded up, and of what comes before.

    A critic lists its parts from the image to the logit; its blocks are the longest of its containers, or else its
    parts themselves.
    """
    children = dict(critic.named_children())
    containers = {
        child: [f"{child}.{inner}" for inner, _ in module.named_children()]
        for child, module in children.items()
        if isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential)
    }
    longest = max(containers, key=lambda child: len(containers[child]), default=None)
    blocks = list(children) if longest is None else containers[longest]
    before = [] if longest is None else list(children)[: list(children).index(longest)]
    frozen = [*before, *blocks[: ceil(share * len(blocks))]]
    return tuple(f"{name}.{part}.*" for part in frozen)


FREEZE_D = Method("freeze the critic's half next to the image", "Mo et al., 2020, arXiv:2002.10964", freeze_d)
