"""Network pickles of NVlabs' stylegan3: alias-free generators, with StyleGAN2's discriminator.

The pickle keeps the arguments that its constructors were called with, without the defaults, and each layer keeps what
was derived from them as attributes. So the configuration is read from the arguments, and every layer is held against
it: band, sampling, channels and filters must be what our own derivation gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import isclose

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Instance, Part, Source, Tree, checked, network
from zoo_stylegan.alias_free.config import StyleGAN3Config
from zoo_stylegan.alias_free.filters import design
from zoo_stylegan.alias_free.geometry import LowPass, Signal
from zoo_stylegan.alias_free.networks import layer_resampling
from zoo_stylegan.measuring import STRANGERS, Made, check_shared, generators_among
from zoo_stylegan.nvlabs import LEFT_OUT, NETWORKS, discriminator
from zoo_stylegan.published import NVIDIA

# Constructor's argument -> our setting and upstream's default.
SYNTHESIS: dict[str, tuple[str, object]] = {
    "channel_base": ("channel_base", 32768),
    "channel_max": ("channel_max", 512),
    "num_layers": ("layers", 14),
    "num_critical": ("critical_layers", 2),
    "first_cutoff": ("first_cutoff", 2.0),
    "first_stopband": ("first_stopband", 2**2.1),
    "last_stopband_rel": ("last_stopband", 2**0.3),
    "margin_size": ("margin", 10),
    "output_scale": ("output_scale", 0.25),
    "conv_kernel": ("conv_kernel", 3),
    "filter_size": ("filter_taps", 6),
    "lrelu_upsampling": ("lrelu_upsampling", 2),
    "use_radial_filters": ("radial_filters", False),
    "conv_clamp": ("conv_clamp", 256.0),
    "magnitude_ema_beta": ("magnitude_ema_beta", 0.999),
}
IGNORED = {"w_dim", "img_resolution", "img_channels", "num_fp16_res"}      # stated elsewhere; about speed alone
MAPPING: dict[str, tuple[str, object]] = {"num_layers": ("mapping_layers", 2), "lr_multiplier": ("mapping_rate", 0.01)}
CLOSE = 1e-6      # how far a stored filter may be from the one that we design


def generator(file: str, instance: Instance, into: str = "generator", within: str = "") -> Made:
    """Return the settings and the tensors of a pickled alias-free generator.

    Raises:
        WeightsError: it lacks something, or is of a variant that is not supported.
    """
    part = Part(file, network(instance), into, within)
    place = part.place
    synthesis, mapping = _child(place, instance, "synthesis"), _child(place, instance, "mapping")
    settings: dict[str, object] = {
        "resolution": _attribute(place, instance, "img_resolution"),
        "channels": _attribute(place, instance, "img_channels"),
        "num_classes": _attribute(place, instance, "c_dim"),
        "latent": _attribute(place, instance, "z_dim"),
        "w": _attribute(place, instance, "w_dim"),
        **_arguments(place, "mapping", mapping, MAPPING, {"z_dim", "c_dim", "w_dim", "num_ws", "w_avg_beta"}),
        **_arguments(place, "synthesis", synthesis, SYNTHESIS, IGNORED),
    }
    config = checked(StyleGAN3Config, settings, place)
    _move_mapping(part, config)
    for name in ("freqs", "phases", "transform", "weight", "affine.weight", "affine.bias"):
        part.move(f"synthesis.input.{name}", f"synthesis.input.{name}")
    signals = config.signals()
    for index, (before, after) in enumerate(pairwise([signals[0], *signals])):
        name = f"L{index}_{after.size}_{after.channels}"
        _check_layer(part, f"synthesis.{name}", _child(place, synthesis, name), config, index, before, after)
        for each in ("", ".affine"):
            part.move_layer(f"synthesis.{name}{each}", f"synthesis.layers.{index}{each}")
        part.move(f"synthesis.{name}.magnitude_ema", f"synthesis.layers.{index}.magnitude")
    return settings, part.close()


def _move_mapping(part: Part, config: StyleGAN3Config) -> None:
    names = {f"mapping.fc{i}": f"mapping.layers.{i}" for i in range(config.mapping_layers)}
    if config.num_classes:
        names["mapping.embed"] = "mapping.embed"
    for theirs, ours in names.items():
        part.move_layer(theirs, ours)
    part.move("mapping.w_avg", "w_average")


def _check_layer(
    part: Part, path: str, layer: Instance, config: StyleGAN3Config, index: int, before: Signal, after: Signal
) -> None:
    """Make sure that a layer works as ours, and leave its filters out.

    Raises:
        WeightsError: naming the attribute or the filter that differs.
    """
    colours = index == config.layers
    expected: dict[str, object] = {
        "is_torgb": colours,
        "is_critically_sampled": index >= config.layers - config.critical_layers,
        "in_size": before.size, "out_size": after.size,
        "in_sampling_rate": before.rate, "out_sampling_rate": after.rate,
        "in_cutoff": before.cutoff, "out_cutoff": after.cutoff,
        "in_half_width": before.half_width, "out_half_width": after.half_width,
        "conv_kernel": 1 if colours else config.conv_kernel,
        "conv_clamp": config.conv_clamp,
    }  # fmt: skip
    for name, wanted in expected.items():
        given = layer.state.get(name, wanted)
        if not _same(given, wanted):
            raise WeightsError(f"{part.place}: {path}.{name} is {given!r:.60}, its configuration gives {wanted!r:.60}.")
    if not colours:
        between = layer_resampling(config, index, before, after)
        for name, filter in (("up_filter", between.up_filter), ("down_filter", between.down_filter)):
            _check_filter(part, f"{path}.{name}", filter)


def _check_filter(part: Part, name: str, filter: LowPass) -> None:
    """Leave out a filter that is the one we design; one of a single tap is not stored."""
    if filter.taps == 1:
        return
    wanted, given = design(filter), part.peek(name).double()
    if given.shape != wanted.shape:
        raise WeightsError(f"{part.place}: tensor {name!r} is {list(given.shape)}, expected {list(wanted.shape)}.")
    if not bool((given - wanted).abs().max() <= CLOSE):
        raise WeightsError(f"{part.place}: tensor {name!r} is not the filter of this layer's band.")
    part.leave(name.replace(".", r"\."))


def _same(given: Tree, wanted: object) -> bool:
    """Return whether an attribute, a number or one for each direction, is what we expect."""
    if isinstance(given, Tensor):
        return bool(given.numel()) and all(_same(value, wanted) for value in given.flatten().tolist())
    if given is None or wanted is None or isinstance(given, bool) or isinstance(wanted, bool):
        return given is wanted
    return isinstance(given, int | float) and isinstance(wanted, int | float) and isclose(given, wanted, rel_tol=1e-9)


# Attributes of modules.


def _arguments(
    place: str, path: str, module: Instance, known: Mapping[str, tuple[str, object]], ignored: set[str]
) -> dict[str, object]:
    """Return the settings that a module was made with, upstream's default where it was not told."""
    given = module.state.get("_init_kwargs") or {}
    if not isinstance(given, dict) or module.state.get("_init_args"):
        raise WeightsError(f"{place}: the arguments of {path} are unreadable: the file is altered.")
    for name in given:
        if name not in known and name not in ignored:
            raise WeightsError(f"{place}: {path} was made with {name!r:.60}, which is not supported.")
    return {ours: given.get(theirs, default) for theirs, (ours, default) in known.items()}


def _attribute(place: str, module: Instance, name: str) -> Tree:
    if name not in module.state:
        raise WeightsError(f"{place}: {name} is missing: the file is incomplete or of another format.")
    return module.state[name]


def _child(place: str, module: Instance, name: str) -> Instance:
    child = (module.state.get("_modules") or {}).get(name)
    if not isinstance(child, Instance):
        raise WeightsError(f"{place}: module {name!r} is missing: the file is incomplete or of another variant.")
    return child


# The format.


def networks(tree: Tree) -> dict[str, Instance]:
    """Return the networks of a pickle by their names, {} if none is an alias-free generator."""
    if isinstance(tree, Instance):
        tree = {"G_ema": tree}
    if not isinstance(tree, dict):
        return {}
    found = {name: tree[name] for name in NETWORKS if isinstance(tree.get(name), Instance)}
    return found if any(_alias_free(instance) for instance in found.values()) else {}


def _alias_free(instance: Instance) -> bool:
    synthesis = (instance.state.get("_modules") or {}).get("synthesis")
    if not isinstance(synthesis, Instance):
        return False
    first = (synthesis.state.get("_modules") or {}).get("input")
    return isinstance(first, Instance) and "freqs" in (first.state.get("_buffers") or {})


def recognise(source: Source) -> bool:
    return len(source.files) == 1 and bool(networks(source.only()[1]))


def read(source: Source) -> Converted:
    file, tree = source.only()
    found = networks(tree)
    for name in tree if isinstance(tree, dict) else ():
        if name not in {*NETWORKS, *LEFT_OUT} and isinstance(tree[name], Instance | Tensor):
            raise WeightsError(f"{file}: {name!r:.60} is unknown: the file is of a variant that is not supported.")
    drawing = {name: generator(file, found[name], into, name) for name, into in generators_among(found).items()}
    settings = next(iter(drawing.values()))[0]
    if any(other != settings for other, _ in drawing.values()):
        raise WeightsError(f"{file}: G and G_ema are of different configurations: {STRANGERS}.")
    parts = [part for _, part in drawing.values()]
    if "D" in found:
        judging, part = discriminator(file, found["D"], within="D")
        check_shared(file, settings, judging)
        settings = {**judging, **settings}
        parts.append(part)
    return Converted("stylegan3", settings, parts)


FORMAT = Format(
    "nvlabs_stylegan3",
    "StyleGAN3 pickles of NVlabs' stylegan3",
    (r".*\.pkl",),
    recognise,
    read,
    NVIDIA,
)
