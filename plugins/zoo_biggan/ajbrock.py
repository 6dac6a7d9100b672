"""Reader of ajbrock/BigGAN-PyTorch: G.pth, G_ema.pth and D.pth, of BigGAN.py and of BigGANdeep.py.

The files are bare state dicts: every size, the resolution and the kind of network are read from names and shapes. What
cannot be read is taken to be the default of the authors' scripts: ReLU, one power iteration, and 1e-5 in batch norm
(another value is given as `norm_eps`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Part, Source, state_dict
from zoo_biggan.ajbrock_networks import DiscriminatorReader, GeneratorReader
from zoo_biggan.foreign import attention_settings, block_settings

NAME = re.compile(r"(?:.*_)?(?P<network>G_ema|G|D)(?:_(?P<copy>(?!.*optim).+))?\.pth")
# Of these names one may be missing, and the file is still known, to be refused by that name.
GENERATOR = {"output_layer.0.gain", "output_layer.0.bias", "output_layer.2.weight", "output_layer.2.bias"}
DISCRIMINATOR = {"embed.weight", "embed.u0", "linear.weight", "linear.u0"}
Files = dict[str, tuple[str, dict[str, Tensor]]]    # "generator", "average", "discriminator" -> file name, tensors


def recognise(source: Source) -> bool:
    """Return whether all files are generators or discriminators by their names of tensors."""
    return bool(source.files) and all(_role(name, tree) for name, tree in source.files.items())


def read(source: Source) -> Converted:
    """Return the networks that the files hold; an averaged generator that comes alone is the generator."""
    files = _files(source)
    alone = "generator" not in files
    into = {"generator": "generator", "average": "generator" if alone else "averages.generator"}
    parts = {role: Part(*files[role], into.get(role, role)) for role in files}
    generators = [GeneratorReader(parts[role]) for role in ("generator", "average") if role in parts]
    discriminator = DiscriminatorReader(parts["discriminator"]) if "discriminator" in parts else None
    for reader in generators:
        reader.move()
    if discriminator is not None:
        discriminator.move()
    config = _config(generators[0] if generators else None, discriminator)
    return Converted("biggan", config, [part.close() for part in parts.values()])


# Which file is what.


def _role(file: str, tree: object) -> str:
    """Return "generator", "average" or "discriminator", or "" for what is none."""
    tensors = state_dict(tree)
    if tensors is None or not any(name.startswith("blocks.0.0.conv1.") for name in tensors):
        return ""
    if len(GENERATOR & set(tensors)) >= len(GENERATOR) - 1:
        return "average" if "ema" in re.split(r"[_.]", file) else "generator"
    return "discriminator" if len(DISCRIMINATOR & set(tensors)) >= len(DISCRIMINATOR) - 1 else ""


def _files(source: Source) -> Files:
    """Return the file of each network; of several copies (best0, copy1) those that are no copy.

    Raises:
        WeightsError: there are several, and none is the last one written.
    """
    copies: dict[str, Files] = {}
    for file, tree in source.files.items():
        named = NAME.fullmatch(file)
        group = copies.setdefault((named and named["copy"]) or "", {})
        role = _role(file, tree)
        if role in group:
            raise WeightsError(f"{source.path} holds two files of one network, {group[role][0]} and {file}: give one.")
        group[role] = file, state_dict(tree) or {}
    if "" in copies:
        return copies[""]
    if len(copies) > 1:
        raise WeightsError(f"{source.path} holds the copies {', '.join(sorted(copies))}: give one file of them.")
    return next(iter(copies.values()))


# Both in one configuration.


def _config(generator: GeneratorReader | None, discriminator: DiscriminatorReader | None) -> Mapping[str, object]:
    one = generator or discriminator
    assert one is not None
    up = None if generator is None else generator.blocks
    down = None if discriminator is None else discriminator.blocks
    after_up, after_down = generator.attended if generator else (), discriminator.attended if discriminator else ()
    config: dict[str, object] = {
        "resolution": one.resolution,
        "channels": one.colours,
        "num_classes": one.classes,
        "deep": one.deep,
        "statistics": 1,
        **block_settings(one.resolution, one.deep, up, down),
        **attention_settings(one.resolution, up, down, after_up, after_down),
    }
    if generator is not None:
        config |= {
            "latent": generator.latent,
            "hierarchical": generator.hierarchical,
            "embedding": generator.embedding,
            "spectral_generator": generator.spectral,
        }
    if discriminator is not None:
        config |= {"discriminator_wide": discriminator.wide, "spectral_discriminator": discriminator.spectral}
    return config


FORMAT = Format(
    name="ajbrock_biggan",
    summary="ajbrock/BigGAN-PyTorch: G.pth, G_ema.pth and D.pth of BigGAN and BigGAN-deep, alone or together",
    files=(NAME.pattern,),
    recognise=recognise,
    read=read,
)
