"""Reads AutoencoderKL as diffusers saves it, under today's names and those of 2022, with or without its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Part, Source, checked
from zoo_vae.kl_config import KLConfig
from zoo_vae.kl_names import DIFFUSERS, DIFFUSERS_2022, Spelling, moved, sizes
from zoo_vae.upstream import config_of, only, tensors_of

CLASS = "AutoencoderKL"
OLD = (".query.", ".key.", ".value.", ".proj_attn.")      # in the names of 2022, of attention alone
DOWN = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}      # type of a level -> has attention
UP = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}


def recognise(source: Source) -> bool:
    """Return whether the file holds levels by diffusers' names."""
    if len(source.files) != 1:
        return False
    tensors = tensors_of(next(iter(source.files.values())))
    return bool(tensors) and any(name.startswith((DIFFUSERS.down, DIFFUSERS.up)) for name in tensors or ())


def read(source: Source) -> Converted:
    """Return the autoencoder; what its config.json leaves out is diffusers' default, without one shapes tell sizes."""
    file, tree = source.only()
    tensors = tensors_of(tree)
    if not tensors:
        raise WeightsError(f"{file}: no dictionary of tensors: give the weights of an {CLASS}.")
    spelling = spelling_of(tensors)
    config = config_of(source, CLASS)
    probe = Part(file, tensors, "")
    settings = sizes(probe, spelling) if config is None else settings_of(config)
    parts = moved(probe, spelling, checked(KLConfig, {**settings, "norm_groups": 1}, file))
    return Converted("vae", {"variant": "kl", **settings}, parts)


def spelling_of(tensors: Mapping[str, Tensor]) -> Spelling:
    """Return the names that the file's attention has."""
    return DIFFUSERS_2022 if any(old in name for name in tensors for old in OLD) else DIFFUSERS


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return our settings for a diffusers configuration.

    Raises:
        WeightsError: it asks for what we have not, or contradicts itself.
    """
    only(config, "act_fn", ("silu", "swish"))
    channels = config.get("in_channels", 3)
    only(config, "out_channels", (channels,))
    widths = config.get("block_out_channels", [64])
    if not isinstance(widths, list) or not 1 <= len(widths) <= 8:
        raise WeightsError(f"config.json: block_out_channels={str(widths)[:60]!r}: one to eight widths are possible.")
    down = _attention(config, "down_block_types", DOWN, len(widths))
    if down != _attention(config, "up_block_types", UP, len(widths))[::-1]:
        raise WeightsError("config.json: down_block_types and up_block_types have attention at different levels.")
    return {
        "channels": channels,
        "latent_channels": config.get("latent_channels", 4),
        "widths": tuple(widths),
        "depth": config.get("layers_per_block", 1),
        "mid_attention": config.get("mid_block_add_attention", True),
        "attention_levels": tuple(i for i, has in enumerate(down) if has),
        "quant_conv": config.get("use_quant_conv", True),
        "post_quant_conv": config.get("use_post_quant_conv", True),
        **scales_of(config, len(widths)),
    }


def scales_of(config: Mapping[str, Any], levels: int) -> dict[str, Any]:
    """Return our settings for what a diffusers configuration says besides sizes."""
    settings = {
        "norm_groups": config.get("norm_num_groups", 32),
        "scaling_factor": config.get("scaling_factor"),
        "shift_factor": config.get("shift_factor"),
        "latent_mean": config.get("latents_mean"),
        "latent_std": config.get("latents_std"),
        "resolution": _resolution(config.get("sample_size"), 1 << (levels - 1)),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _attention(config: Mapping[str, Any], name: str, kinds: Mapping[str, bool], levels: int) -> list[bool]:
    """Return for each level whether its blocks have attention after them."""
    given = config.get(name, [next(iter(kinds))] * levels)
    if not isinstance(given, list) or len(given) != levels or not all(isinstance(kind, str) for kind in given):
        raise WeightsError(f"config.json: {name}={str(given)[:60]!r}: {levels} levels need as many types.")
    for kind in given:
        if kind not in kinds:
            raise WeightsError(f"config.json: {name} has {kind[:60]!r}: possible are {', '.join(kinds)}.")
    return [kinds[kind] for kind in given]


def _resolution(size: object, factor: int) -> int | None:
    """Return diffusers' sample_size, a hint there, as a resolution that the factor divides; None without one."""
    if isinstance(size, list):
        size = max((side for side in size if isinstance(side, int)), default=None)
    if not isinstance(size, int) or not 1 <= size <= 4096:
        return None
    return max(4, -(-size // factor) * factor)


FORMAT = Format(
    name="diffusers_kl",
    summary="diffusers' AutoencoderKL: the autoencoders of Stable Diffusion, SDXL, SD3 and FLUX",
    files=(r"diffusion_pytorch_model(\.fp16|\.non_ema)?\.(safetensors|bin)",),
    recognise=recognise,
    read=read,
)
