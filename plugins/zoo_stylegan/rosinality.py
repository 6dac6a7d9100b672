"""Checkpoints of rosinality's stylegan2-pytorch: of its training, and as converted from NVlabs' pickles.

Training writes ``{"g", "d", "g_ema", "g_optim", "d_optim", "args", "ada_aug_p"}``; conversion writes ``{"g_ema",
"latent_avg"}`` and, when asked, "g" and "d". A file may also be the state dict of one network. There is no
configuration: sizes are those of the tensors, and the learning rate multiplier of the mapping network is the 0.01 that
upstream always uses.
"""

from __future__ import annotations

import re

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Part, Source, Tree, state_dict
from zoo_stylegan.measuring import Made, channel_settings, generators_among, joined, mean_style, taps

NETWORKS = ("g", "g_ema", "d")
LEFT_OUT = {"g_optim", "d_optim", "args", "ada_aug_p"}
RATE = 0.01                                     # of the mapping network
MARK = "conv1.conv.modulation.weight"           # a tensor that every generator has
JUDGING_MARK = "final_linear.0.weight"          # and one of every discriminator


def generator(file: str, tensors: dict[str, Tensor], into: str, within: str) -> Made:
    """Return the settings and the tensors of a generator, without the average style."""
    part = Part(file, tensors, into, within)
    blocks = _count(part, r"to_rgbs\.(\d+)\.bias")
    layers = _count(part, r"style\.(\d+)\.weight", first=1)
    for i in range(layers):
        part.move_layer(f"style.{i + 1}", f"mapping.layers.{i}")
    part.move("input.input", "blocks.4x4.const", lambda tensor: _single(tensor)[0])
    _move_styled(part, "conv1", "blocks.4x4.conv1", 0)
    _move_to_image(part, "to_rgb1", "blocks.4x4.to_image")
    for k in range(blocks):
        ours = f"blocks.{8 << k}x{8 << k}"
        _move_styled(part, f"convs.{2 * k}", f"{ours}.conv0", 2 * k + 1)
        _move_styled(part, f"convs.{2 * k + 1}", f"{ours}.conv1", 2 * k + 2)
        _move_to_image(part, f"to_rgbs.{k}", f"{ours}.to_image")
    kernels = [f"convs.{2 * k}.conv.blur.kernel" for k in range(blocks)]
    kernels += [f"to_rgbs.{k}.upsample.kernel" for k in range(blocks)]
    widths = [part.size("input.input", 1), *(part.size(f"convs.{2 * k + 1}.conv.weight", 1) for k in range(blocks))]
    settings: dict[str, object] = {
        "resolution": 4 << blocks,
        "channels": part.size("to_rgb1.bias", 1),
        "num_classes": 0,
        "latent": part.size("style.1.weight", 1),
        "w": part.size(f"style.{layers}.weight"),
        "mapping_layers": layers,
        "mapping_rate": RATE,
        "synthesis_architecture": "skip",
        "resample_filter": taps(part, kernels, gain=4.0),      # kept with the gain of upsampling
        **channel_settings(widths),
    }
    part.leave(r".*\.kernel")
    return settings, part.close()


def discriminator(file: str, tensors: dict[str, Tensor], within: str) -> Made:
    """Return the settings and the tensors of a discriminator."""
    part = Part(file, tensors, "discriminator", within)
    blocks = _count(part, r"convs\.(\d+)\.conv1\.0\.weight", first=1)
    part.move("convs.0.0.weight", "from_image.weight")
    part.move("convs.0.1.bias", "from_image.bias")
    for k in range(blocks):
        theirs, at = f"convs.{k + 1}", 4 << (blocks - k)
        for name, to in (
            ("conv1.0.weight", "conv0.weight"),
            ("conv1.1.bias", "conv0.bias"),
            ("conv2.1.weight", "conv1.weight"),
            ("conv2.2.bias", "conv1.bias"),
            ("skip.1.weight", "skip.weight"),
        ):
            part.move(f"{theirs}.{name}", f"blocks.{at}x{at}.{to}")
    part.move("final_conv.0.weight", "conv.weight")
    part.move("final_conv.1.bias", "conv.bias")
    part.move_layer("final_linear.0", "dense")
    part.move_layer("final_linear.1", "head")
    kernels = [f"convs.{k + 1}.{name}.0.kernel" for k in range(blocks) for name in ("conv2", "skip")]
    width = part.size("final_conv.0.weight")
    widths = [width, *(part.size(f"convs.{k}.conv1.0.weight") for k in range(blocks, 0, -1))]
    settings: dict[str, object] = {
        "resolution": 4 << blocks,
        "channels": part.size("convs.0.0.weight", 1),
        "num_classes": 0,
        "resample_filter": taps(part, kernels),
        "stddev_channels": part.size("final_conv.0.weight", 1) - width,
        **channel_settings(widths, "discriminator_"),
    }
    part.leave(r".*\.kernel")
    return settings, part.close()


def _count(part: Part, pattern: str, first: int = 0) -> int:
    """Return how many layers the file numbers by this pattern, from `first` up to the highest."""
    numbers = [int(match[1]) for name in part if (match := re.fullmatch(pattern, name)) and len(match[1]) < 3]
    count = max(numbers, default=first - 1) + 1 - first
    if count < 1:
        raise WeightsError(f"{part.place}: no tensor is named {pattern}: the file is incomplete or of another format.")
    return count


def _single(tensor: Tensor) -> Tensor:
    if len(tensor) != 1:
        raise ValueError("expected an axis of length 1 in front")
    return tensor


def _move_modulated(part: Part, theirs: str, ours: str) -> None:
    part.move(f"{theirs}.weight", f"{ours}.weight", lambda tensor: _single(tensor)[0])
    part.move_layer(f"{theirs}.modulation", f"{ours}.affine")


def _move_styled(part: Part, theirs: str, ours: str, noise: int) -> None:
    _move_modulated(part, f"{theirs}.conv", f"{ours}.conv")
    part.move(f"{theirs}.noise.weight", f"{ours}.noise_strength", lambda tensor: tensor.reshape(()))
    part.move(f"noises.noise_{noise}", f"{ours}.noise_const", lambda tensor: _single(_single(tensor)[0])[0])
    part.move(f"{theirs}.activate.bias", f"{ours}.bias")


def _move_to_image(part: Part, theirs: str, ours: str) -> None:
    _move_modulated(part, f"{theirs}.conv", f"{ours}.conv")
    part.move(f"{theirs}.bias", f"{ours}.bias", lambda tensor: _single(tensor).reshape(-1))


def _networks(tree: Tree) -> dict[str, dict[str, Tensor]]:
    """Return the networks of a checkpoint by upstream's names, {} if it is none of rosinality's."""
    if not isinstance(tree, dict):
        return {}
    whole = state_dict(tree) or {}
    if MARK in whole or JUDGING_MARK in whole:
        return {"g_ema" if MARK in whole else "d": whole}
    found = {name: tensors for name in NETWORKS if (tensors := state_dict(tree.get(name)))}
    marks = {name: JUDGING_MARK if name == "d" else MARK for name in found}
    return found if all(marks[name] in tensors for name, tensors in found.items()) else {}


def recognise(source: Source) -> bool:
    return len(source.files) == 1 and bool(_networks(source.only()[1]))


def read(source: Source) -> Converted:
    file, tree = source.only()
    found = _networks(tree)
    wrapped = not any(tensors is tree for tensors in found.values())
    unknown = [name for name in tree if name not in {*found, *LEFT_OUT, "latent_avg"}] if wrapped else []
    if unknown:
        raise WeightsError(f"{file}: {unknown[0]!r:.60} is unknown: the file is of a variant that is not supported.")
    within = {name: name if wrapped else "" for name in found}
    drawing = {
        name: generator(file, found[name], into, within[name]) for name, into in generators_among(found).items()
    }
    parts = [part for _, part in drawing.values()]
    for part in parts:
        part.fill("w_average", _average(file, tree.get("latent_avg"), parts[-1]))
    return joined(file, drawing, discriminator(file, found["d"], within["d"]) if "d" in found else None)


def _average(file: str, given: Tree, part: Part) -> Tensor:
    """Return the average style: the file's, or where it has none the mean of many styles of the averaged generator."""
    layers = _count(part, r"style\.(\d+)\.weight", first=1)
    w = part.size(f"style.{layers}.weight")
    if given is None:
        return mean_style(part, part.size("style.1.weight", 1), w, layers, RATE)
    if not isinstance(given, Tensor) or given.numel() != w:
        raise WeightsError(f"{file}: 'latent_avg' is no tensor of {w} numbers, one for each of a style.")
    return given.reshape(-1)


FORMAT = Format(
    "rosinality_stylegan2",
    "StyleGAN2 checkpoints of rosinality's stylegan2-pytorch",
    (r".*\.pth?",),
    recognise,
    read,
)
