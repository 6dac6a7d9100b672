"""Reads StudioGAN's BigGAN, BigGAN-deep and ResNet (SNGAN, SAGAN) checkpoints; facts in `zoo.formats.studiogan`.

Backbones: big_resnet, big_resnet_deep_legacy, big_resnet_deep_studiogan and resnet (src/models in
POSTECH-CVLab/PyTorch-StudioGAN, MIT licence).
"""

from __future__ import annotations

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Source
from zoo.formats.studiogan import FILES, holds, networks
from zoo_biggan.foreign import attention_settings, block_settings
from zoo_biggan.studiogan_discriminator import read_discriminator
from zoo_biggan.studiogan_generator import read_generator
from zoo_biggan.studiogan_layout import Side

Settings = dict[str, object]

# What holds for every network of StudioGAN: eps of its batch norms, one set of statistics, stored vectors.
ALWAYS: Settings = {"norm_eps": 1e-4, "statistics": 1, "spectral": "stored"}
STRANGERS = "these are not networks of one run"


def recognise(source: Source) -> bool:
    """Whether all files are residual networks of StudioGAN."""
    return holds(source, ("linear0.", "conv2d5.", "blocks.0.0.conv2d1."), ("linear1.", "blocks.0.0.conv2d1."))


def read(source: Source) -> Converted:
    """Return the networks of a file or of a run's folder."""
    found = networks(source)
    judge = found.get("discriminator")
    down = read_discriminator(judge) if judge else None
    sides = {judge.file: down} if judge and down else {}
    up = None
    for into in ("generator", "averages.generator"):
        if maker := found.get(into):
            up = sides[maker.file] = read_generator(maker, down.classes if down else 0)
    settings = _agreed(sides)
    if down:
        known = settings.setdefault("num_classes", down.classes)
        if down.projects and down.classes != known:
            judged, made = next(iter(sides)), list(sides)[-1]
            raise WeightsError(f"{judged} knows {down.classes} classes, {made} {known}: {STRANGERS}.")
        settings["projection"] = down.projects or not known
    config = {**ALWAYS, **settings, **_arranged(settings, up, down)}
    return Converted("biggan", config, [network.part.close() for network in found.values()])


def _agreed(sides: dict[str, Side]) -> Settings:
    """Return what the files say of the networks.

    Raises:
        WeightsError: two of them differ.
    """
    settings: Settings = {}
    said: dict[str, str] = {}
    for file, side in sides.items():
        for name, value in side.settings.items():
            if settings.setdefault(name, value) != value:
                raise WeightsError(f"{said[name]} has {name} {settings[name]}, {file} {value}: {STRANGERS}.")
            said.setdefault(name, file)
    return settings


def _arranged(settings: Settings, up: Side | None, down: Side | None) -> Settings:
    """Return the settings of blocks and attention."""
    resolution = settings["resolution"]
    assert isinstance(resolution, int)
    ups, downs = (side.blocks if side else None for side in (up, down))
    attending = (side.attention if side else () for side in (up, down))
    return {
        **block_settings(resolution, bool(settings["deep"]), ups, downs),
        **attention_settings(resolution, ups, downs, *attending),
    }


FORMAT = Format(
    name="studiogan",
    summary="StudioGAN: BigGAN, BigGAN-deep, SNGAN, SAGAN, ContraGAN, ReACGAN and their kin",
    files=FILES,
    recognise=recognise,
    read=read,
    license="MIT",
)
