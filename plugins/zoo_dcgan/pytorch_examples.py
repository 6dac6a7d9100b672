"""Reader of DCGAN checkpoints in the PyTorch examples' form, under any of the names that public code gives its layers.

Upstream is `dcgan/main.py` of pytorch/examples and the tutorial, a state dict for each network (netG_epoch_24.pth). The
tensors are ours but for biases: upstream's convolutions have none, ours have one where no batch norm follows. A bias
before a batch norm, which other code has, only shifts the mean that is subtracted there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Part, Source, Tree, state_dict
from zoo_dcgan.namings import NORM, Layout, Stage, recognised

WRAPPERS = ("module", "_orig_mod")      # of nn.DataParallel and torch.compile
# What files that hold both networks, or training's state beside them, call the two.
PLAYER = re.compile(r"(net|avg)?_?[GD](_?(ema|avg|state_dict|state))*|(gen|disc)\w*", re.ASCII)
AVERAGE = re.compile(r"(?<![A-Za-z])(avg|average|ema|EMA)(?![a-z])")
DEEPEST = 2                               # dictionaries within dictionaries that networks are looked for in


@dataclass(frozen=True, eq=False)
class Network:
    """A network in a file."""

    file: str
    prefix: str                           # what its tensors' names have before the layout's
    layout: Layout
    tensors: Mapping[str, Tensor]         # under the file's names, with the keys of dictionaries around them

    @property
    def averaged(self) -> bool:
        return bool(AVERAGE.search(self.place))

    @property
    def place(self) -> str:
        """Return where the network is, for messages."""
        return f"{self.file} ({self.prefix.rstrip('.')})" if self.prefix else self.file

    def part(self, into: str) -> Part:
        return Part(self.file, self.tensors, into)

    def conv(self, index: int) -> str:
        """Return a stage's convolution under the file's name."""
        return f"{self.prefix}{self.layout.stages[index].conv}"


def recognise(source: Source) -> bool:
    """Return whether each file holds networks of a DCGAN and no other."""
    return bool(_networks(source))


def read(source: Source) -> Converted:
    """Return the generator, its average, and the discriminator, whichever there are."""
    found = _networks(source)
    if not found:
        raise WeightsError(f"{source.path.name}: the names of its tensors are of no known naming of a DCGAN.")
    generators = [each for each in found if each.layout.network == "generator"]
    lives = [each for each in generators if not each.averaged]
    places: dict[str, Network] = {}
    for each in found:
        average = each.averaged and each in generators and lives
        place = "averages.generator" if average else each.layout.network
        if place in places:
            raise WeightsError(
                f"{places[place].place} and {each.place} both hold a {each.layout.network}: give one file, or a folder "
                "with one of each."
            )
        places[place] = each
    parts = {place: each.part(place) for place, each in places.items()}
    config = _config(places, parts)
    for place, each in places.items():
        _move(each, parts[place])
    return Converted("dcgan", config, [part.close() for part in parts.values()])


# From files to networks.


def _networks(source: Source) -> list[Network]:
    """Return the networks in the files, or none if one of the files has none or another one."""
    found: list[Network | None] = []
    for file, tree in source.files.items():
        inside = [_network(file, prefix, tensors) for prefix, tensors in _dictionaries(tree)]
        found += inside or [None]
    known = [each for each in found if each is not None]
    return known if len(known) == len(found) else []


def _dictionaries(tree: Tree, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Return the state dicts in a file that hold convolutions: the keys that lead there, and the tensors."""
    if (tensors := state_dict(tree)) is not None:
        heads = {name.partition(".")[0] for name in tensors}
        both = len(heads) > 1 and all(PLAYER.fullmatch(head) for head in heads)
        named = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
        for start in [f"{prefix}{head}." for head in sorted(heads)] if both else [prefix]:
            inside = {name: tensor for name, tensor in named.items() if name.startswith(start)}
            if any(tensor.ndim == 4 for tensor in inside.values()):
                yield start, inside
    elif isinstance(tree, dict) and depth < DEEPEST:
        for name, inner in tree.items():
            if isinstance(name, str):      # optimisers count their tensors
                yield from _dictionaries(inner, f"{prefix}{name}.", depth + 1)


def _network(file: str, prefix: str, tensors: Mapping[str, Tensor]) -> Network | None:
    while head := _wrapper(tensors, prefix):
        prefix += head
    layout = recognised({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return None if layout is None else Network(file, prefix, layout, tensors)


def _wrapper(tensors: Mapping[str, Tensor], prefix: str) -> str:
    """Return the word, with its dot, that all names go on with behind the prefix, if it says nothing about layers."""
    head = next(iter(tensors)).removeprefix(prefix).partition(".")[0]
    shared = all(name.startswith(f"{prefix}{head}.") for name in tensors)
    return f"{head}." if shared and (head in WRAPPERS or PLAYER.fullmatch(head)) else ""


# Sizes.


def _config(places: Mapping[str, Network], parts: Mapping[str, Part]) -> dict[str, object]:
    """Return our settings, from the shapes of the first and last convolutions."""
    made, judged = {}, {}
    if each := places.get("generator"):
        made = _generator_sizes(each, parts["generator"])
    if each := places.get("discriminator"):
        judged = _discriminator_sizes(each, parts["discriminator"])
    for name in ("resolution", "channels"):
        if made and judged and made[name] != judged[name]:
            raise WeightsError(
                f"{places['generator'].place} makes images of {name} {made[name]}, {places['discriminator'].place} "
                f"judges {judged[name]}: these are not of one model; give one of them."
            )
    # A network that the file lacks would, trained upstream, have been as wide as the other.
    width = made.get("generator_width") or judged.get("discriminator_width")
    return {"generator_width": width, "discriminator_width": width, **judged, **made}


def _generator_sizes(network: Network, part: Part) -> dict[str, int]:
    latent, _, _ = _sizes(part, network.conv(0), kernels=(4,))
    width, channels, kernel = _sizes(part, network.conv(-1), kernels=(1, 4))
    _check_channels(part, network.conv(-1), channels)
    ups = len(network.layout.stages) - (1 if kernel == 4 else 2)
    return {
        "resolution": 4 << ups, "channels": channels, "latent": latent, "generator_width": width,
        "image_kernel": kernel,
    }  # fmt: skip


def _discriminator_sizes(network: Network, part: Part) -> dict[str, int]:
    width, channels, _ = _sizes(part, network.conv(0), kernels=(4,))
    _check_channels(part, network.conv(0), channels)
    scores, _, side = _sizes(part, network.conv(-1), kernels=(2, 4))
    if scores != 1:
        raise WeightsError(
            f"{network.file}: tensor '{network.conv(-1)}.weight' gives {scores} numbers for an image: only "
            "discriminators that give one are supported, not those that also tell classes or attributes."
        )
    downs = len(network.layout.stages) - 1
    return {"resolution": side << downs, "channels": channels, "discriminator_width": width, "judged_side": side}


def _sizes(part: Part, conv: str, *, kernels: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the two channel numbers and the kernel size of a convolution."""
    shape = part.peek(f"{conv}.weight").shape
    if len(shape) != 4 or 0 in shape or shape[2] != shape[3] or shape[2] not in kernels:
        wanted = " or ".join(f"{kernel}x{kernel}" for kernel in kernels)
        raise WeightsError(
            f"{part.file}: tensor '{conv}.weight' is {list(shape)}: a DCGAN has a convolution of kernel {wanted} here."
        )
    return shape[0], shape[1], shape[2]


def _check_channels(part: Part, conv: str, channels: int) -> None:
    if channels not in (1, 3, 4):
        raise WeightsError(f"{part.file}: tensor '{conv}.weight' is for {channels} channels: images have 1, 3 or 4.")


# Tensors.


def _move(network: Network, part: Part) -> None:
    prefix, (first, *middle, last) = network.prefix, network.layout.stages
    if network.layout.network == "generator":
        kernel = part.peek(f"{prefix}{last.conv}.weight").shape[2]
        _stage(part, prefix, first, "head", "norm")
        for index, stage in enumerate(middle, start=1):
            ours = f"blocks.1_{1 << (len(middle) - index + (kernel == 4))}"
            _stage(part, prefix, stage, f"{ours}.conv", f"{ours}.norm")
        _stage(part, prefix, last, "to_image")
    else:
        _stage(part, prefix, first, "from_image")
        for index, stage in enumerate(middle):
            _stage(part, prefix, stage, f"blocks.{index}.conv", f"blocks.{index}.norm")
        _stage(part, prefix, last, "head")


def _stage(part: Part, prefix: str, stage: Stage, conv: str, norm: str = "") -> None:
    """Move one convolution and its batch norm."""
    weight, bias = f"{prefix}{stage.conv}.weight", f"{prefix}{stage.conv}.bias"
    part.move(weight, f"{conv}.weight")
    if norm:
        theirs = f"{prefix}{stage.norm}"
        shift = part.source.get(bias, torch.zeros(()))
        changes = {"running_mean": lambda mean: mean - shift.expand_as(mean)}
        for name in NORM:
            part.move(f"{theirs}.{name}", f"{norm}.{name}", changes.get(name))
        part.leave(re.escape(bias))
        if any(name.endswith(".num_batches_tracked") for name in part):
            part.move(f"{theirs}.num_batches_tracked", f"{norm}.num_batches_tracked")
        else:      # before torch 0.4.1
            part.fill(f"{norm}.num_batches_tracked", torch.tensor(0))
    elif bias in part:
        part.move(bias, f"{conv}.bias")
    else:
        outputs = part.source[weight].shape[1 if conv == "to_image" else 0]      # a transposed one counts inputs first
        part.fill(f"{conv}.bias", torch.zeros(outputs))


FORMAT = Format(
    name="pytorch_dcgan",
    summary="DCGAN of the PyTorch examples and tutorial, and code after them (huggan, pytorch_GAN_zoo, WassersteinGAN)",
    files=(
        r"(net)?[GD](_.*)?\.(pth?|ckpt|bin|safetensors)",
        r"(?i)(dc_?gan_?)?(gen|disc)\w*\.(pth?|ckpt|bin|safetensors)",
        r"(pytorch_)?model\.(bin|safetensors|pth?)",
    ),
    recognise=recognise,
    read=read,
)
