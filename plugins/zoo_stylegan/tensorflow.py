"""TensorFlow pickles of NVlabs' stylegan2 (configurations E and F) and stylegan2-ada.

A file holds three objects of class ``dnnlib.tflib.network.Network``: generator, discriminator, averaged generator; some
hold one alone. Each keeps `static_kwargs`, what differs from its builder's defaults; `variables`, pairs of name and
array; and `components`, the networks within it (mapping, synthesis).

Facts that the transforms rest on. Dense weights are [in, out] and convolutions [kh, kw, in, out]. TensorFlow's
convolution correlates as torch's does, but `Conv0_up` is turned by 180 degrees before it is transposed, so it is stored
turned. A style's bias is stored without the 1 that is added to it. The discriminator's `Conv1_down` is not turned.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Instance, Part, Source, Tree
from zoo_stylegan.config import BINOMIAL
from zoo_stylegan.measuring import Made, channel_settings, generators_among, joined
from zoo_stylegan.published import NVIDIA

KIND = "dnnlib.tflib.network.Network"

# Arguments that our networks work by: anything else would be another network.
FIXED: dict[str, tuple[object, ...]] = {
    "nonlinearity": ("lrelu",),
    "mapping_nonlinearity": ("lrelu",),
    "normalize_latents": (True,),
    "fmap_const": (None,),
    "mapping_func": ("G_mapping",),
    "synthesis_func": ("G_synthesis", "G_synthesis_stylegan2"),
    "use_pagan": (False,),
    "use_spectral_norm": (False,),
    "score_max": (1,),
}
# Arguments that are read here or by the tensors' shapes, or matter in training alone.
FREE = {
    "resolution", "num_channels", "label_size", "architecture", "conv_clamp", "resample_kernel", "use_noise",
    "latent_size", "dlatent_size", "dlatent_broadcast", "mapping_layers", "mapping_fmaps", "mapping_lrmul",
    "label_fmaps", "fmap_base", "fmap_decay", "fmap_min", "fmap_max", "mbstd_group_size", "mbstd_num_features",
    "truncation_psi", "truncation_cutoff", "truncation_psi_val", "truncation_cutoff_val", "dlatent_avg_beta",
    "w_avg_beta", "style_mixing_prob", "randomize_noise", "dtype", "num_fp16_res", "fused_modconv", "structure",
    "freeze_layers", "adaptive_dropout", "augment_strength", "pagan_num", "pagan_fade", "score_size",
}  # fmt: skip


def generator(file: str, instance: Instance, into: str, within: str) -> Made:
    """Return the settings and the tensors of a generator."""
    place = f"{file}, {within}"
    given, part = _arguments(place, instance), Part(file, _variables(place, instance), into, within)
    sizes = _sizes(place, given)
    kind, classes = given.get("architecture", "skip"), given.get("label_size", 0)
    settings: dict[str, object] = {
        "num_classes": classes,
        "channels": part.size(f"synthesis/{sizes[-1]}x{sizes[-1]}/ToRGB/weight", 3),
        **_move_mapping(part, given.get("mapping_layers", 8), classes, "mapping/", "Dense", "mapping_"),
        "mapping_rate": given.get("mapping_lrmul", 0.01),
        "resolution": sizes[-1],
        "synthesis_architecture": kind,
        "conv_clamp": given.get("conv_clamp"),
        "resample_filter": _taps(given),
    }
    inputs = part.size("mapping/Dense0/weight")
    settings["latent"] = inputs - (part.size("mapping/LabelEmbed/bias") if classes else 0)
    part.move("synthesis/4x4/Const/const", "blocks.4x4.const", _without_batch)
    noises = iter(range(2 * len(sizes)))
    for at in sizes:
        theirs, ours = f"synthesis/{at}x{at}", f"blocks.{at}x{at}"
        for name, conv in (("Conv", "conv1"),) if at == 4 else (("Conv0_up", "conv0"), ("Conv1", "conv1")):
            _move_modulated(part, f"{theirs}/{name}", f"{ours}.{conv}", turned=conv == "conv0")
            noise = None if given.get("use_noise", True) is False else next(noises)
            _move_noise(part, f"{theirs}/{name}", f"{ours}.{conv}", noise, at)
        if kind == "resnet" and at > 4:
            part.move(f"{theirs}/Skip/weight", f"{ours}.skip.weight", _turned)
        if kind == "skip" or at == sizes[-1]:
            _move_modulated(part, f"{theirs}/ToRGB", f"{ours}.to_image")
    part.move("dlatent_avg", "w_average")
    part.leave("lod")
    widths = [part.size(f"synthesis/{at}x{at}/{'Conv' if at == 4 else 'Conv1'}/weight", 3) for at in sizes]
    return settings | channel_settings(widths, hint=_hint(given)), part.close()


def discriminator(file: str, instance: Instance, within: str = "D") -> Made:
    """Return the settings and the tensors of a discriminator."""
    place = f"{file}, {within}"
    given, part = _arguments(place, instance), Part(file, _variables(place, instance), "discriminator", within)
    sizes = _sizes(place, given)
    kind, classes = given.get("architecture", "resnet"), given.get("label_size", 0)
    # Without the argument, stylegan2 ("D_stylegan2") takes groups of 4 and stylegan2-ada ("D_main") the whole batch.
    usual = 4 if instance.state.get("build_func_name") == "D_stylegan2" else None
    for at in sizes[1:]:
        theirs, ours = f"{at}x{at}", f"blocks.{at}x{at}"
        if at == sizes[-1] or kind == "skip":
            _move_conv(part, f"{theirs}/FromRGB", "from_image" if at == sizes[-1] else f"{ours}.from_image")
        _move_conv(part, f"{theirs}/Conv0", f"{ours}.conv0")
        _move_conv(part, f"{theirs}/Conv1_down", f"{ours}.conv1")
        if kind == "resnet":
            part.move(f"{theirs}/Skip/weight", f"{ours}.skip.weight", _upright)
    if kind == "skip":
        _move_conv(part, "4x4/FromRGB", "from_image_4x4")
    _move_conv(part, "4x4/Conv", "conv")
    _move_dense(part, "4x4/Dense0", "dense")
    _move_dense(part, "Output", "head")
    widths = [part.size("4x4/Conv/weight", 3), *(part.size(f"{at}x{at}/Conv0/weight", 3) for at in sizes[1:])]
    settings: dict[str, object] = {
        "num_classes": classes,
        "channels": part.size(f"{sizes[-1]}x{sizes[-1]}/FromRGB/weight", 2),
        "resolution": sizes[-1],
        "discriminator_architecture": kind,
        "discriminator_clamp": given.get("conv_clamp") or 0.0,
        "resample_filter": _taps(given),
        "stddev_group": given.get("mbstd_group_size", usual) or None,
        "stddev_channels": part.size("4x4/Conv/weight", 2) - part.size("8x8/Conv1_down/weight", 3),
        **channel_settings(widths, "discriminator_", _hint(given)),
    }
    if classes:
        mapping = _move_mapping(part, given.get("mapping_layers", 0), classes, "", "Mapping", "discriminator_mapping_")
        settings |= {"discriminator_mapping_rate": given.get("mapping_lrmul", 0.1)}
        settings |= {"discriminator_label": mapping.pop("w"), "discriminator_embed": mapping.pop("embed")} | mapping
    return settings, part.close()


# Moves.


def _upright(tensor: Tensor) -> Tensor:
    return tensor.permute(3, 2, 0, 1)


def _turned(tensor: Tensor) -> Tensor:
    return _upright(tensor.flip(0, 1))


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.permute(1, 0)


def _without_batch(tensor: Tensor) -> Tensor:
    if len(tensor) != 1:
        raise ValueError("expected an axis of length 1 in front")
    return tensor[0]


def _move_conv(part: Part, theirs: str, ours: str) -> None:
    part.move(f"{theirs}/weight", f"{ours}.weight", _upright)
    part.move(f"{theirs}/bias", f"{ours}.bias")


def _move_dense(part: Part, theirs: str, ours: str) -> None:
    part.move(f"{theirs}/weight", f"{ours}.weight", _transposed)
    part.move(f"{theirs}/bias", f"{ours}.bias")


def _move_modulated(part: Part, theirs: str, ours: str, *, turned: bool = False) -> None:
    part.move(f"{theirs}/weight", f"{ours}.conv.weight", _turned if turned else _upright)
    part.move(f"{theirs}/mod_weight", f"{ours}.conv.affine.weight", _transposed)
    part.move(f"{theirs}/mod_bias", f"{ours}.conv.affine.bias", lambda tensor: tensor + 1)
    part.move(f"{theirs}/bias", f"{ours}.bias")


def _move_noise(part: Part, theirs: str, ours: str, noise: int | None, at: int) -> None:
    if noise is None:
        part.fill(f"{ours}.noise_const", torch.zeros(at, at))
        part.fill(f"{ours}.noise_strength", torch.zeros(()))
    else:
        part.move(f"synthesis/noise{noise}", f"{ours}.noise_const", lambda tensor: _without_batch(tensor)[0])
        part.move(f"{theirs}/noise_strength", f"{ours}.noise_strength", lambda tensor: tensor.reshape(()))


def _move_mapping(part: Part, layers: int, classes: int, prefix: str, name: str, setting: str) -> dict[str, object]:
    """Move a mapping network; return its number of layers and their width, and the sizes "embed" and "w"."""
    if not isinstance(layers, int) or not 0 <= layers <= 32:
        raise WeightsError(f"{part.place}: mapping_layers is {layers!r:.60}: expected a number from 0 to 32.")
    found: dict[str, object] = {f"{setting}layers": layers}
    if classes:
        _move_dense(part, f"{prefix}LabelEmbed", "mapping.embed")
        found["embed"] = found["w"] = part.size(f"{prefix}LabelEmbed/bias")
    for i in range(layers):
        _move_dense(part, f"{prefix}{name}{i}", f"mapping.layers.{i}")
        found["w"] = part.size(f"{prefix}{name}{i}/bias")
    if layers > 1:
        found[f"{setting}width"] = part.size(f"{prefix}{name}0/bias")
    return found


# What a Network keeps.


def _variables(place: str, instance: Instance, prefix: str = "") -> dict[str, Tensor]:
    """Return the arrays of a network and of those within it, under names such as ``synthesis/4x4/Conv/weight``."""
    found = {}
    for pair in instance.state.get("variables") or ():
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], Tensor | float | int):
            raise WeightsError(f"{place}: variable {pair!r:.80} is no pair of a name and an array.")
        found[f"{prefix}{pair[0]}"] = torch.as_tensor(pair[1], dtype=torch.float32)      # a scalar comes as a number
    for name, inner in (instance.state.get("components") or {}).items():
        found |= _variables(place, inner, f"{prefix}{name}/")
    return found


def _arguments(place: str, instance: Instance) -> Mapping[str, Tree]:
    """Return the arguments that the network was built with.

    Raises:
        WeightsError: one is unknown, or has a value that makes another network.
    """
    given: Mapping[str, Tree] = instance.state.get("static_kwargs") or {}
    for name, value in given.items():
        if name in FIXED and value not in FIXED[name]:
            raise WeightsError(f"{place}: {name}={value!r:.60} is not supported; possible: {FIXED[name][0]!r}.")
        if name not in FIXED and name not in FREE:
            raise WeightsError(f"{place}: the argument {name!r:.60} is unknown: the file is of another variant.")
    return given


def _sizes(place: str, given: Mapping[str, Tree]) -> list[int]:
    """Return 4, 8, ..., the resolution."""
    resolution = given.get("resolution", 1024)
    if not isinstance(resolution, int) or not 8 <= resolution <= 2048 or resolution & (resolution - 1):
        raise WeightsError(f"{place}: resolution is {resolution!r:.60}: expected a power of two from 8 to 2048.")
    return [4 << i for i in range(resolution.bit_length() - 2)]


def _taps(given: Mapping[str, Tree]) -> Tree:
    taps = given.get("resample_kernel", BINOMIAL)
    if taps is None:      # a box
        return (1.0, 1.0)
    return tuple(float(tap) for tap in taps)


def _hint(given: Mapping[str, Tree]) -> tuple[object, object]:
    """Return channel_base and channel_max; TensorFlow's base counts from half the resolution."""
    base = given.get("fmap_base", 16384)
    return 2 * base if isinstance(base, int) else None, given.get("fmap_max", 512)


# The format.


def _networks(tree: Tree) -> list[Instance]:
    """Return generator, discriminator and averaged generator, or one network; [] for what is not TensorFlow's."""
    trees = tree if isinstance(tree, list) else [tree]
    known = all(isinstance(each, Instance) and each.kind == KIND for each in trees)
    return trees if known and len(trees) in (1, 3) else []


def recognise(source: Source) -> bool:
    return len(source.files) == 1 and bool(_networks(source.only()[1]))


def read(source: Source) -> Converted:
    file, tree = source.only()
    found = _networks(tree)
    if len(found) == 3:
        networks = dict(zip(("G", "D", "Gs"), found, strict=True))
    else:
        networks = {"G" if each.state.get("components") else "D": each for each in found}
    drawing = {name: generator(file, networks[name], into, name) for name, into in generators_among(networks).items()}
    return joined(file, drawing, discriminator(file, networks["D"]) if "D" in networks else None)


FORMAT = Format(
    "tensorflow_stylegan2",
    "TensorFlow pickles of NVlabs' stylegan2 (configurations E and F) and stylegan2-ada",
    (r".*\.pkl",),
    recognise,
    read,
    NVIDIA,
)
