"""TAESD's layers as they are numbered in files: one row for each network, where layers without tensors count too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Part
from zoo_vae.tiny import TinyConfig

# Ours in a block -> theirs.
BLOCK = {"conv1": "conv.0", "conv2": "conv.2", "conv3": "conv.4"}
MIXING = {"mixing.widen": "pool.0", "mixing.norm": "pool.1", "mixing.narrow": "pool.3"}
BARE = ("mixing.widen", "mixing.narrow", "downs.", "ups.")      # ours without a bias


@dataclass(frozen=True)
class Row:
    """How a file numbers one network's layers."""

    prefix: str
    first: int      # number of the first convolution

    def kinds(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[int, bool]]:
        """Yield (number, whether it is a block) of the layers that have tensors, in order."""
        pattern = re.compile(rf"{re.escape(self.prefix)}(\d{{1,4}})\.(conv\.[024]\.|pool\.[013]\.)?(weight|bias)")
        found: dict[int, bool] = {}
        for match in filter(None, map(pattern.fullmatch, tensors)):
            found[int(match[1])] = found.get(int(match[1]), False) or match[2] is not None
        yield from sorted(found.items())


def sizes(part: Part, row: Row, network: str) -> dict[str, Any]:
    """Return the settings of ours that the shapes of a network's tensors tell.

    Raises:
        WeightsError: a tensor that tells one is missing.
    """
    layers = dict(row.kinds(part.source))
    encodes, end = network == "encoder", max(layers)
    blocks, number = [0], row.first + (1 if encodes else 2)      # the decoder's first ReLU has a number
    while number < end:
        if layers.get(number):
            blocks[-1] += 1
        else:                                                    # a convolution, in the decoder after a doubling
            number += not encodes
            if number not in layers:
                part.peek(f"{row.prefix}{number}.weight")        # refuses
            blocks.append(0)
        number += 1
    first, last = (part.peek(f"{row.prefix}{number}.weight") for number in (row.first, end))
    if first.ndim != 4 or last.ndim != 4:
        raise WeightsError(f"{part.file}: tensor {next(iter(part.measured))!r} has no shape of a convolution.")
    colours, latent = (first.shape[1], last.shape[0]) if encodes else (last.shape[0], first.shape[1])
    return {
        "channels": colours,
        "latent_channels": latent,
        f"{network}_width": first.shape[0],
        f"{network}_blocks": tuple(blocks),
        "mixing": any(".pool." in name for name in part),
    }


def layers_of(network: str, config: TinyConfig) -> Iterator[tuple[int, str, bool]]:
    """Yield (number from the first convolution on, our name, whether it is a block) for every layer with tensors."""
    encodes = network == "encoder"
    number = 0
    yield number, "stem", False
    number += 1 if encodes else 2                          # the decoder's first ReLU
    for i, count in enumerate(config.encoder_blocks if encodes else config.decoder_blocks):
        if i and encodes:
            yield number, f"downs.{i - 1}", False
            number += 1
        elif i:
            yield number + 1, f"ups.{i - 1}", False        # after the doubling, which has no tensors
            number += 2
        for j in range(count):
            yield number, f"stages.{i}.{j}", True
            number += 1
    yield number, "head" if encodes else "to_image", False


def move(part: Part, row: Row, network: str, config: TinyConfig) -> Part:
    """Return the network's part, every tensor of it moved.

    Raises:
        WeightsError: a tensor is missing or unknown.
    """
    bottom = f"stages.{len(config.encoder_blocks) - 1 if network == 'encoder' else 0}."
    for number, ours, is_block in layers_of(network, config):
        theirs = f"{row.prefix}{number + row.first}"
        inner = {"": ""} if not is_block else {**BLOCK, **(MIXING if config.mixing and ours.startswith(bottom) else {})}
        for mine, its in inner.items():
            here, there = (".".join(filter(None, pair)) for pair in ((ours, mine), (theirs, its)))
            for kind in ("weight",) if (mine or here).startswith(BARE) else ("weight", "bias"):
                part.move(f"{there}.{kind}", f"{here}.{kind}")
    return part.close()
