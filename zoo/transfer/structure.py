"""How networks are built, told by their containers and not by names: what lies next to the latent or to the image."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

from torch import Tensor, nn

from zoo.recipe import Recipe

Containers = nn.ModuleList | nn.ModuleDict | nn.Sequential


@dataclass(frozen=True)
class Parts:
    """The parts of a network in its own order: names of submodules, without the network's own."""

    before: tuple[str, ...]      # what comes before the blocks: submodules, and parameters of the network itself
    blocks: tuple[str, ...]      # of equal kind, one after the other


def parts(network: nn.Module) -> Parts:
    """Return a network's parts: its blocks are the longest of its containers, or else its children themselves.

    Those of a network that only stands around another, as critics of packs and groups do, are the other's.
    """
    children = dict(network.named_children())
    if len(children) == 1:
        [(only, inner)] = children.items()
        found = parts(inner)
        if found.blocks and not isinstance(inner, Containers):
            return Parts(
                tuple(f"{only}.{part}" for part in found.before), tuple(f"{only}.{part}" for part in found.blocks)
            )
    containers = {
        child: [f"{child}.{inner}" for inner, _ in module.named_children()]
        for child, module in children.items()
        if isinstance(module, Containers)
    }
    longest = max(containers, key=lambda child: len(containers[child]), default=None)
    if longest is None:
        return Parts((), tuple(children))
    return Parts(tuple(list(children)[: list(children).index(longest)]), tuple(containers[longest]))


def drawing_parts(generator: nn.Module) -> Parts:
    """Return a generator's parts, from latent to image; where it holds no container, those of its largest child.

    A generator may be a mapping beside a synthesis that holds the blocks, as StyleGAN3's is.
    """
    own = tuple(name for name, _ in generator.named_parameters(recurse=False))
    children = dict(generator.named_children())
    if not children or any(isinstance(module, Containers) for module in children.values()):
        found = parts(generator)
        return Parts((*own, *found.before), found.blocks)
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in children.items()}
    largest = max(sizes, key=lambda name: sizes[name])
    inner = drawing_parts(children[largest])
    if not inner.blocks:
        return Parts(own, tuple(children))
    earlier = list(children)[: list(children).index(largest)]
    return Parts(
        (*own, *earlier, *(f"{largest}.{name}" for name in inner.before)),
        tuple(f"{largest}.{name}" for name in inner.blocks),
    )


def frozen_patterns(name: str, critic: nn.Module, share: float = 0.5) -> tuple[str, ...]:
    """Return name patterns of the blocks nearest to the image, `share` of them rounded up, and of what comes before.

    A critic lists its parts from the image to the logit.
    """
    found = parts(critic)
    frozen = [*found.before, *found.blocks[: ceil(share * len(found.blocks))]]
    return tuple(f"{name}.{part}.*" for part in frozen)


def drawers(recipe: Recipe) -> tuple[str, ...]:
    """Return the networks that a recipe trains and that are no critics, in the order of its turns."""
    trained = dict.fromkeys(name for phase in recipe.phases for name in phase.trains)
    return tuple(name for name in trained if name not in recipe.critics)


def with_frozen(recipe: Recipe, patterns: Mapping[str, Collection[str]]) -> Recipe:
    """Return the recipe with further parameters standing still.

    Args:
        patterns: network -> shell patterns of parameter names, in every turn that trains it.
    """
    return replace(recipe, phases=tuple(
        replace(phase, frozen=(*phase.frozen, *(p for name in phase.trains for p in patterns.get(name, ()))))
        for phase in recipe.phases
    ))  # fmt: skip


@contextmanager
def in_evaluation(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation meanwhile, and every module of it back into the mode that it had."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def captured(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that holds what submodules returned last: of several tensors the first."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: object, output: Any) -> None:
        seen[name] = output[0] if isinstance(output, tuple | list) else output

    hooks = [network.get_submodule(name).register_forward_hook(partial(keep, name)) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Have what a network in training remembers of its batches, such as running statistics, stay as it was."""
    # Copies take the buffers' places: to write the old values back would spoil the backward that is to come.
    held = [
        (module, name, buffer)
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if module.training
    ]
    for module, name, buffer in held:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in held:
            setattr(module, name, buffer)
