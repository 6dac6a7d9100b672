"""Network pickles of NVlabs' stylegan2-ada-pytorch, and of StyleGAN2 networks in its stylegan3 repository.

Both write ``{"G", "D", "G_ema", "training_set_kwargs", "augment_pipe"}``, each network an object whose modules carry
their settings as attributes. These are what was built, so they are read instead of the constructors' arguments, whose
defaults the two repositories disagree on and do not store.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Instance, Part, Source, Tree, network
from zoo_stylegan.attributes import channels_of, clamp_of, module, one, resolution_of, walk, whole
from zoo_stylegan.measuring import Made, channel_settings, generators_among, joined, taps
from zoo_stylegan.published import NVIDIA

NETWORKS = ("G", "D", "G_ema")
LEFT_OUT = {"training_set_kwargs", "augment_pipe"}      # the augmentation's filters are constants


def generator(file: str, instance: Instance, into: str = "generator", within: str = "") -> Made:
    """Return the settings and the tensors of a pickled StyleGAN2 generator.

    Raises:
        WeightsError: it lacks something, or is of a variant that is not supported.
    """
    part, modules = Part(file, network(instance), into, within), dict(walk(instance))
    place = part.place
    resolution, classes = resolution_of(place, instance), whole(place, "", instance, "c_dim", 0, 100_000)
    sizes = [4 << i for i in range(resolution.bit_length() - 2)]
    blocks = {at: module(place, modules, f"synthesis.b{at}") for at in sizes}
    kind = one(place, "architecture", [block.state.get("architecture") for block in blocks.values()])
    resampling = [f"synthesis.b{at}{layer}.resample_filter" for at in sizes[1:] for layer in ("", ".conv0")]
    for at, block in blocks.items():
        _move_block(part, at, block, kind, last=at == resolution)
    settings = {
        "resolution": resolution,
        "channels": whole(place, "", instance, "img_channels", 1, 4),
        "num_classes": classes,
        "latent": whole(place, "", instance, "z_dim", 1, 8192),
        **_move_mapping(part, modules, classes),
        "synthesis_architecture": kind,
        "conv_clamp": clamp_of(place, modules),
        "resample_filter": taps(part, resampling),
    }
    part.move("mapping.w_avg", "w_average")
    part.leave(r".*\bresample_filter")
    widths = [part.size("synthesis.b4.const"), *(part.size(f"synthesis.b{at}.conv1.weight") for at in sizes[1:])]
    return settings | channel_settings(widths, hint=channels_of(module(place, modules, "synthesis"))), part.close()


def discriminator(file: str, instance: Instance, into: str = "discriminator", within: str = "") -> Made:
    """Return the settings, fields of `DiscriminatorConfig`, and the tensors of a pickled StyleGAN2 discriminator.

    Raises:
        WeightsError: it lacks something, or is of a variant that is not supported.
    """
    part, modules = Part(file, network(instance), into, within), dict(walk(instance))
    place = part.place
    resolution, classes = resolution_of(place, instance), whole(place, "", instance, "c_dim", 0, 100_000)
    sizes = [8 << i for i in range(resolution.bit_length() - 3)]
    blocks = {at: module(place, modules, f"b{at}") for at in (4, *sizes)}
    kind = one(place, "architecture", [block.state.get("architecture") for block in blocks.values()])
    for at in sizes:
        _move_judging_block(part, at, kind, top=at == resolution)
    if kind == "skip":
        part.move_layer("b4.fromrgb", "from_image_4x4")
    for theirs, ours in (("conv", "conv"), ("fc", "dense"), ("out", "head")):
        part.move_layer(f"b4.{theirs}", ours)
    clamp = clamp_of(place, modules)
    settings: dict[str, object] = {
        "resolution": resolution,
        "channels": whole(place, "", instance, "img_channels", 1, 4),
        "num_classes": classes,
        "discriminator_architecture": kind,
        "discriminator_clamp": 0.0 if clamp is None else clamp,
        "resample_filter": taps(part, [f"b{at}{of}.resample_filter" for at in sizes for of in ("", ".conv1")]),
        **_stddev(part, modules),
    }
    widths = [part.size("b4.conv.weight"), *(part.size(f"b{at}.conv0.weight") for at in sizes)]
    settings |= channel_settings(widths, "discriminator_", channels_of(instance))
    if classes:
        mapping = _move_mapping(part, modules, classes, "discriminator_")
        label = mapping.pop("w")
        settings |= mapping | ({} if label == widths[0] else {"discriminator_label": label})
    part.leave(r".*\bresample_filter")
    return settings, part.close()


def _move_judging_block(part: Part, at: int, kind: str, *, top: bool) -> None:
    theirs, ours = f"b{at}", f"blocks.{at}x{at}"
    if top or kind == "skip":
        part.move_layer(f"{theirs}.fromrgb", "from_image" if top else f"{ours}.from_image")
    part.move_layer(f"{theirs}.conv0", f"{ours}.conv0")
    part.move_layer(f"{theirs}.conv1", f"{ours}.conv1")
    if kind == "resnet":
        part.move(f"{theirs}.skip.weight", f"{ours}.skip.weight")


def _move_block(part: Part, at: int, block: Instance, kind: str, *, last: bool) -> None:
    theirs, ours = f"synthesis.b{at}", f"blocks.{at}x{at}"
    if at == 4:
        part.move(f"{theirs}.const", f"{ours}.const")
    for conv in ("conv1",) if at == 4 else ("conv0", "conv1"):
        _move_modulated(part, f"{theirs}.{conv}", f"{ours}.{conv}")
        layer = block.state["_modules"].get(conv)
        if isinstance(layer, Instance) and layer.state.get("use_noise") is False:
            part.fill(f"{ours}.{conv}.noise_const", torch.zeros(at, at))
            part.fill(f"{ours}.{conv}.noise_strength", torch.zeros(()))
        else:
            part.move(f"{theirs}.{conv}.noise_const", f"{ours}.{conv}.noise_const")
            part.move(f"{theirs}.{conv}.noise_strength", f"{ours}.{conv}.noise_strength")
    if kind == "resnet" and at > 4:
        part.move(f"{theirs}.skip.weight", f"{ours}.skip.weight")
    if last or kind == "skip":
        _move_modulated(part, f"{theirs}.torgb", f"{ours}.to_image")


def _move_modulated(part: Part, theirs: str, ours: str) -> None:
    part.move(f"{theirs}.weight", f"{ours}.conv.weight")
    part.move_layer(f"{theirs}.affine", f"{ours}.conv.affine")
    part.move(f"{theirs}.bias", f"{ours}.bias")


def _move_mapping(part: Part, modules: dict[str, Instance], classes: int, prefix: str = "") -> dict[str, object]:
    """Move the mapping network and return its settings, names after `prefix`, and how many numbers it returns ("w")."""
    layers = whole(part.place, "mapping", module(part.place, modules, "mapping"), "num_layers", 0, 32)
    if classes:
        part.move_layer("mapping.embed", "mapping.embed")
    names = [f"mapping.fc{i}" for i in range(layers)]
    for i, name in enumerate(names):
        part.move_layer(name, f"mapping.layers.{i}")
    w = part.size(f"{names[-1] if names else 'mapping.embed'}.weight")
    settings: dict[str, object] = {"w": w, f"{prefix}mapping_layers": layers}
    if names:
        rates = [module(part.place, modules, name).state.get("bias_gain") for name in names]
        settings[f"{prefix}mapping_rate"] = one(part.place, "bias_gain", rates)
        settings[f"{prefix}mapping_width"] = part.size(f"{names[0]}.weight") if layers > 1 else None
    if classes:
        settings[f"{prefix}embed"] = part.size("mapping.embed.weight")
    return {name: value for name, value in settings.items() if name in ("w", f"{prefix}mapping_layers") or value != w}


def _stddev(part: Part, modules: dict[str, Instance]) -> dict[str, object]:
    layer = modules.get("b4.mbstd")
    if layer is None:
        return {"stddev_channels": 0}
    channels = whole(part.place, "b4.mbstd", layer, "num_channels", 1, 64)
    return {"stddev_group": layer.state.get("group_size"), "stddev_channels": channels}


# The format.


def networks(tree: Tree) -> dict[str, Instance]:
    """Return the networks of a pickle by their names, {} if it is none of StyleGAN2's."""
    if isinstance(tree, Instance):
        tree = {"D" if tree.kind == "Discriminator" else "G_ema": tree}
    if not isinstance(tree, dict):
        return {}
    found = {name: tree[name] for name in NETWORKS if isinstance(tree.get(name), Instance)}
    for name, instance in found.items():
        modules = dict(walk(instance))
        block = "b4" if name == "D" else "synthesis.b4"
        if block not in modules or "synthesis.input" in modules:
            return {}
    return found


def recognise(source: Source) -> bool:
    return len(source.files) == 1 and bool(networks(source.only()[1]))


def read(source: Source) -> Converted:
    file, tree = source.only()
    found = networks(tree)
    unknown = [name for name in tree if name not in {*NETWORKS, *LEFT_OUT}] if isinstance(tree, dict) else []
    for name in unknown:
        if isinstance(tree[name], Instance | Tensor):
            raise WeightsError(f"{file}: {name!r:.60} is unknown: the file is of a variant that is not supported.")
    drawing = {name: generator(file, found[name], into, name) for name, into in generators_among(found).items()}
    return joined(file, drawing, discriminator(file, found["D"], within="D") if "D" in found else None)


FORMAT = Format(
    "nvlabs_stylegan2",
    "StyleGAN2 pickles of NVlabs' stylegan2-ada-pytorch and stylegan3",
    (r".*\.pkl",),
    recognise,
    read,
    NVIDIA,
)
