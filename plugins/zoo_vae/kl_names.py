"""The names that other projects gave the tensors of AutoencoderKL, and the sizes that the shapes tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Part
from zoo_vae.kl import AutoencoderKL
from zoo_vae.kl_config import KLConfig

Rules = tuple[tuple[str, str], ...]      # regular expressions in our name -> what theirs has there, applied in order
LINEAR = re.compile(r".*\.attentions?(\.\d+)?\.(query|key|value|out)\.weight")      # ours; 1x1 convolutions elsewhere


@dataclass(frozen=True)
class Spelling:
    """One project's names."""

    rules: Rules
    down: str = "encoder.down"           # their lists of levels
    up: str = "decoder.up"
    block: str = "block"                 # their list of blocks inside a level
    reversed_up: bool = False            # the decoder's levels count from full size, not from the bottom
    prefix: str = ""                     # before every name

    def of(self, ours: str, levels: int) -> str:
        """Return their name, or its beginning, for ours, in an autoencoder with so many levels."""
        if self.reversed_up:
            ours = re.sub(r"^decoder\.levels\.(\d+)", lambda m: f"decoder.levels.{levels - 1 - int(m[1])}", ours)
        for pattern, replacement in self.rules:
            ours = re.sub(pattern, replacement, ours)
        return self.prefix + ours

    def count(self, tensors: Mapping[str, Tensor], network: str) -> tuple[int, int]:
        """Return how many levels their encoder or decoder has, and how many blocks at each; 0 for none."""
        stem = re.escape(self.prefix + (self.down if network == "encoder" else self.up))
        pattern = re.compile(rf"{stem}\.(\d{{1,3}})\.{self.block}\.(\d{{1,3}})\..*")
        found = [(int(match[1]), int(match[2])) for match in map(pattern.fullmatch, tensors) if match]
        return max((level + 1 for level, _ in found), default=0), max((block + 1 for _, block in found), default=0)


_SHARED: Rules = (
    (r"^encoder\.quant\.", "quant_conv."),
    (r"^decoder\.quant\.", "post_quant_conv."),
    (r"\.stem\.", ".conv_in."),
    (r"\.(head|to_image)\.", ".conv_out."),
)
_DIFFUSERS: Rules = (
    *_SHARED,
    (r"^(encoder|decoder)\.norm\.", r"\1.conv_norm_out."),
    (r"^(encoder.*)\.resample\.", r"\1.downsamplers.0."),
    (r"^(decoder.*)\.resample\.", r"\1.upsamplers.0."),
    (r"^encoder\.levels\.", "encoder.down_blocks."),
    (r"^decoder\.levels\.", "decoder.up_blocks."),
    (r"\.blocks\.", ".resnets."),
    (r"\.middle\.block1\.", ".mid_block.resnets.0."),
    (r"\.middle\.block2\.", ".mid_block.resnets.1."),
    (r"\.middle\.attention\.", ".mid_block.attentions.0."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"(\.attentions\.\d+)\.norm\.", r"\1.group_norm."),
)
_TODAY: Rules = (
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.out\.", ".to_out.0."),
)
DIFFUSERS = Spelling((*_DIFFUSERS, *_TODAY), down="encoder.down_blocks", up="decoder.up_blocks", block="resnets")
DIFFUSERS_2022 = Spelling(
    (*_DIFFUSERS, (r"\.out\.", ".proj_attn.")), down="encoder.down_blocks", up="decoder.up_blocks", block="resnets"
)
LATENT_DIFFUSION = Spelling(
    (
        *_SHARED,
        (r"^(encoder|decoder)\.norm\.", r"\1.norm_out."),
        (r"^(encoder.*)\.resample\.", r"\1.downsample."),
        (r"^(decoder.*)\.resample\.", r"\1.upsample."),
        (r"^encoder\.levels\.", "encoder.down."),
        (r"^decoder\.levels\.", "decoder.up."),
        (r"\.blocks\.", ".block."),
        (r"\.attentions\.", ".attn."),
        (r"\.middle\.block([12])\.", r".mid.block_\1."),
        (r"\.middle\.attention\.", ".mid.attn_1."),
        (r"\.shortcut\.", ".nin_shortcut."),
        (r"\.query\.", ".q."),
        (r"\.key\.", ".k."),
        (r"\.value\.", ".v."),
        (r"\.out\.", ".proj_out."),
    ),
    reversed_up=True,
)


def sizes(part: Part, spelling: Spelling) -> dict[str, Any]:
    """Return the settings of ours that the shapes of a file's tensors tell, from the encoder if there is one.

    Raises:
        WeightsError: a tensor that tells one is missing.
    """
    network = "encoder" if spelling.count(part.source, "encoder")[0] else "decoder"
    levels, blocks = spelling.count(part.source, network)
    encodes = network == "encoder"

    def shape(ours: str) -> list[int]:
        return list(part.peek(spelling.of(f"{network}.{ours}", levels)).shape)

    def holds(ours: str) -> bool:
        return any(name.startswith(spelling.of(ours, levels)) for name in part)

    order = range(levels) if encodes else range(levels - 1, -1, -1)      # ours, from full size down
    quant, post_quant = holds("encoder.quant."), holds("decoder.quant.")
    try:
        return {
            "channels": shape("stem.weight")[1] if encodes else shape("to_image.weight")[0],
            "latent_channels": shape("head.weight")[0] // 2 if encodes else shape("stem.weight")[1],
            "widths": tuple(shape(f"levels.{i}.blocks.0.conv1.weight")[0] for i in order),
            "depth": blocks if encodes else blocks - 1,
            "mid_attention": holds(f"{network}.middle.attention."),
            "attention_levels": tuple(n for n, i in enumerate(order) if holds(f"{network}.levels.{i}.attentions.")),
            "quant_conv": quant if encodes else post_quant,
            "post_quant_conv": post_quant if holds("decoder.stem.") else quant,
        }
    except IndexError as error:
        raise WeightsError(f"{part.file}: tensor {list(part.measured)[-1]!r} has no shape of a convolution.") from error


def moved(whole: Part, spelling: Spelling, config: KLConfig) -> list[Part]:
    """Return the parts `encoder` and `decoder` with every tensor moved; a network without tensors has no part.

    Args:
        whole: all tensors, and those that sizes were read from.

    Raises:
        WeightsError: a tensor is missing or unknown.
    """
    with torch.device("meta"):      # for its names; they do not depend on the groups
        names = list(AutoencoderKL(config.model_copy(update={"norm_groups": 1})).state_dict())
    levels = len(config.widths)
    decoding = tuple(f"{spelling.prefix}{name}." for name in ("decoder", "post_quant_conv"))
    shares: dict[str, dict[str, Tensor]] = {"encoder": {}, "decoder": {}}
    for name, tensor in whole.source.items():
        shares["decoder" if name.startswith(decoding) else "encoder"][name] = tensor
    parts = []
    for network, share in shares.items():
        if share:
            part = Part(whole.file, share, network)
            part.measured = whole.measured
            for ours in names:
                if ours.startswith(f"{network}."):
                    change = _flat if LINEAR.fullmatch(ours) else None
                    part.move(spelling.of(ours, levels), ours.removeprefix(f"{network}."), change)
            parts.append(part.close())
    return parts


def _flat(weight: Tensor) -> Tensor:
    """Return a 1x1 convolution's weight [O, I, 1, 1] as that of a linear layer [O, I]; one of those as it is."""
    return weight.flatten(1)
