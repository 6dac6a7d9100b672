"""What a foreign network's shapes, channels and places of attention are in our configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from math import gcd

import torch
from torch import Tensor

from zoo.formats.contract import Part, Source, state_dict
from zoo_biggan.config import (
    BOTTOM,
    GENERATOR_WIDTHS,
    Block,
    attended_down,
    attended_up,
    paper_discriminator,
    paper_generator,
    sizes_down,
    sizes_up,
)

UNIT = 512      # the widest unit of channels that a configuration takes
Settings = dict[str, object]
Change = Callable[[Tensor], Tensor]


def lone(source: Source, known: Set[str]) -> bool:
    """Return whether this is one file with the names that only its format has; it may lack one, to be refused by it."""
    tensors = state_dict(next(iter(source.files.values()))) if len(source.files) == 1 else None
    return tensors is not None and len(known & set(tensors)) >= len(known) - 1


def move_spectral(
    part: Part,
    theirs: str,
    ours: str,
    *,
    bias: bool = False,
    weight: Change | None = None,
    u: Change | None = None,
    v: Change | None = None,
) -> None:
    """Move a layer with the live spectral norm of torch.nn.utils, its tensors changed by these."""
    for name, to, change in (("weight_orig", "weight", weight), ("weight_u", "u", u), ("weight_v", "v", v)):
        part.move(f"{theirs}.{name}", f"{ours}.{to}", change)
    if bias:
        part.move(f"{theirs}.bias", f"{ours}.bias")


def turned(size: int) -> Change:
    """Return the change [..., z and class] -> [..., class and z]; `size` is that of the class embedding."""
    return lambda tensor: torch.roll(tensor, size, -1)


def channels_first(tensor: Tensor) -> Tensor:
    """[4 * 4 * channels, ...] -> [channels * 4 * 4, ...], for what makes the first layer's output."""
    return tensor.reshape(BOTTOM * BOTTOM, -1, *tensor.shape[1:]).transpose(0, 1).flatten(0, 1)


def block_settings(resolution: int, deep: bool, up: Sequence[Block] | None, down: Sequence[Block] | None) -> Settings:
    """Return the settings that say these blocks (resamples, channels in, channels out); None: the file lacks a network.

    Networks of the paper need no more than their width. Others are named block by block, in units of the largest number
    of channels that divides all.
    """
    given = {
        name: tuple(blocks)
        for name, blocks in (("generator_blocks", up), ("discriminator_blocks", down))
        if blocks is not None
    }
    paper: dict[str, tuple[Block, ...]] = {}
    if resolution in GENERATOR_WIDTHS:
        paper = {
            "generator_blocks": paper_generator(resolution, deep),
            "discriminator_blocks": paper_discriminator(resolution, deep),
        }
        units = {blocks[-1][2] // paper[name][-1][2] for name, blocks in given.items()}
        unit = min(units)
        if len(units) == 1 and all(_times(paper[name], unit) == blocks for name, blocks in given.items()):
            return {"width": unit}
    unit = gcd(*(channels for blocks in given.values() for _, *both in blocks for channels in both))
    unit = next(part for part in range(min(unit, UNIT), 0, -1) if unit % part == 0)
    own = {name: tuple((grows, a // unit, b // unit) for grows, a, b in blocks) for name, blocks in given.items()}
    if not paper and "discriminator_blocks" not in own:      # there is no other to fall back on: the generator mirrored
        mirrored = tuple((grows, b, a) for grows, a, b in reversed(own["generator_blocks"]))
        own["discriminator_blocks"] = mirrored if deep else ((mirrored[0][0], 0, mirrored[0][2]), *mirrored[1:])
    return {"width": unit, **own}


def attention_settings(
    resolution: int,
    up: Sequence[Block] | None,
    down: Sequence[Block] | None,
    after_up: Sequence[int],
    after_down: Sequence[int],
) -> Settings:
    """Return the settings for attention after these blocks; a network that the file lacks has it at the same sizes."""
    grown = [] if up is None else sizes_up(tuple(up))
    shrunk = [] if down is None else sizes_down(tuple(down), resolution)
    places = {grown[i] for i in after_up} if up is not None else {shrunk[i] for i in after_down}
    sizes = tuple(sorted(size for size in places if BOTTOM < size <= resolution))
    found: Settings = {"attention": sizes}
    if up is not None and attended_up(grown, sizes) != tuple(after_up):
        found["generator_attention"] = tuple(after_up)
    if down is not None and attended_down(shrunk, sizes) != tuple(after_down):
        found["discriminator_attention"] = tuple(after_down)
    return found


def _times(blocks: tuple[Block, ...], unit: int) -> tuple[Block, ...]:
    return tuple((grows, a * unit, b * unit) for grows, a, b in blocks)
