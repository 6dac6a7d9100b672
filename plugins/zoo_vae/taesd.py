"""Reads TAESD: its author's files, one for each network, and diffusers' AutoencoderTiny, one for both.

Both number the layers of a network in one row; the author's decoder counts the squashing before its first convolution.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Part, Source, checked
from zoo_vae.tiny import TinyConfig
from zoo_vae.tiny_layers import Row, move, sizes
from zoo_vae.upstream import config_of, only, tensors_of

CLASS = "AutoencoderTiny"
LAYER = re.compile(r"(encoder|decoder)\.layers\.")
BLOCKS = re.compile(r"(encoder|decoder)\.layers\.\d+\.conv\.[024]\.weight")


def recognise(source: Source) -> bool:
    """Return whether the file or the two files hold rows of layers as TAESD has them."""
    return 1 <= len(source.files) <= 2 and all(_rows(tree) for tree in source.files.values())


def read(source: Source) -> Converted:
    """Return the autoencoder, or the one network that the file holds."""
    parts: dict[str, tuple[Row, Part]] = {}
    for file, tree in source.files.items():
        for network, (row, tensors) in _rows(tree).items():
            if network in parts:
                raise WeightsError(f"{source.path}: {parts[network][1].file} and {file} hold the same: give one file.")
            parts[network] = row, Part(file, tensors, network)
    if not parts:
        raise WeightsError(f"{source.path}: no rows of layers as TAESD has them.")
    config = config_of(source, CLASS) if any(row.prefix for row, _ in parts.values()) else None
    settings = _derived(parts) if config is None else settings_of(config)
    final = checked(TinyConfig, settings, next(iter(parts.values()))[1].file)
    moved = [move(part, row, network, final) for network, (row, part) in parts.items()]
    return Converted("vae", {"variant": "tiny", **settings}, moved)


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return our settings for a diffusers configuration.

    Raises:
        WeightsError: it asks for what we have not.
    """
    only(config, "act_fn", ("relu",))
    only(config, "upsample_fn", ("nearest",))
    only(config, "upsampling_scaling_factor", (2,))
    channels = config.get("in_channels", 3)
    only(config, "out_channels", (channels,))
    settings = {
        "channels": channels,
        "latent_channels": config.get("latent_channels"),
        "encoder_width": _width(config, "encoder_block_out_channels"),
        "decoder_width": _width(config, "decoder_block_out_channels"),
        "encoder_blocks": _counts(config, "num_encoder_blocks"),
        "decoder_blocks": _counts(config, "num_decoder_blocks"),
        **{name: config.get(name) for name in ("latent_magnitude", "latent_shift", "scaling_factor", "shift_factor")},
    }
    return {name: value for name, value in settings.items() if value is not None}


def _rows(tree: object) -> dict[str, tuple[Row, dict[str, Tensor]]]:
    """Return network -> how its layers are numbered, and its tensors; empty for what is no TAESD."""
    tensors = tensors_of(tree) or {}
    if any(BLOCKS.fullmatch(name) for name in tensors):
        shares: dict[str, dict[str, Tensor]] = {}
        stray = "encoder" if any(name.startswith("encoder.layers.") for name in tensors) else "decoder"
        for name, tensor in tensors.items():
            network = name.partition(".")[0]
            shares.setdefault(network if LAYER.match(name) else stray, {})[name] = tensor
        return {network: (Row(f"{network}.layers.", 0), share) for network, share in shares.items()}
    if not any(re.fullmatch(r"\d+\.conv\.[024]\.weight", name) for name in tensors):
        return {}
    if any(name.startswith(("0.", "1.conv.")) for name in tensors):      # the decoder's layer 0 has no tensors
        return {"encoder": (Row("", 0), tensors)}
    return {"decoder": (Row("", 1), tensors)}


def _derived(parts: Mapping[str, tuple[Row, Part]]) -> dict[str, Any]:
    """Return the settings that the shapes tell; an absent network would mirror the one that is there."""
    settings: dict[str, Any] = {}
    for network, (row, part) in parts.items():
        settings |= sizes(part, row, network)
    for network, other in (("encoder", "decoder"), ("decoder", "encoder")):
        if network not in parts:
            settings[f"{network}_width"] = settings[f"{other}_width"]
            settings[f"{network}_blocks"] = settings[f"{other}_blocks"][::-1]
    return settings


def _width(config: Mapping[str, Any], name: str) -> object:
    """Return the one width of all stages: with several, diffusers cannot run."""
    widths = config.get(name, config.get("block_out_channels"))
    if widths is None:
        return None
    if not isinstance(widths, list) or not widths or any(width != widths[0] for width in widths):
        raise WeightsError(f"config.json: {name}={str(widths)[:60]!r}: all stages have the same width.")
    width: object = widths[0]
    return width


def _counts(config: Mapping[str, Any], name: str) -> object:
    counts = config.get(name)
    return tuple(counts) if isinstance(counts, list) else counts


FORMAT = Format(
    name="taesd",
    summary="TAESD and its kin (taesdxl, taesd3, taef1, taef2): the author's files or diffusers' AutoencoderTiny",
    files=(r"tae\w+\.(safetensors|pth)", r"diffusion_pytorch_model(\.fp16)?\.(safetensors|bin)"),
    recognise=recognise,
    read=read,
)
