"""Reads StudioGAN's DCGAN checkpoints (backbone deep_conv); facts in `zoo.formats.studiogan`."""

from __future__ import annotations

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Source
from zoo.formats.studiogan import FILES, Network, holds, networks

# Where torch keeps what its spectral norm works with.
STORED = ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v")


def recognise(source: Source) -> bool:
    """Whether all files are networks of StudioGAN's deep_conv backbone."""
    return holds(source, ("linear0.", "conv4.", "blocks.0.0.deconv0."), ("linear1.", "conv1.", "blocks.0.0.conv0."))


def read(source: Source) -> Converted:
    """Return the networks of a file or of a run's folder."""
    found = networks(source)
    config: dict[str, object] = {"variant": "deep_conv", "norm_eps": 1e-4}
    for into in ("generator", "averages.generator"):
        if maker := found.get(into):
            config |= _generator(maker)
    if judge := found.get("discriminator"):
        config |= _discriminator(judge, config.get("num_classes"))
    config.setdefault("generator_widths", (512, 256, 128, 64))
    widths = config["generator_widths"]
    assert isinstance(widths, tuple)
    config["resolution"] = 4 << len(widths) - 1
    return Converted("dcgan", config, [network.part.close() for network in found.values()])


def _generator(network: Network) -> dict[str, object]:
    """Move a generator's tensors and return its settings; spectral norm, which ours has not, is divided out."""
    places = network.places()
    network.folded("linear0", "head")
    classes = 0
    for place in places:
        name, to = f"blocks.{place}.0", f"blocks.{place}"
        network.folded(f"{name}.deconv0", f"{to}.conv", axis=1)
        if f"{name}.bn0.gain" not in network:
            network.batch_norm(f"{name}.bn0", f"{to}.norm")
            continue
        classes = network.size(f"{name}.bn0.gain", 1)
        network.folded(f"{name}.bn0.gain", f"{to}.norm.gain", bias=False)
        network.folded(f"{name}.bn0.bias", f"{to}.norm.bias", bias=False)
        for each in ("running_mean", "running_var", "num_batches_tracked"):
            network.part.move(f"{name}.bn0.bn.{each}", f"{to}.norm.norm.{each}")
    network.folded("conv4", "to_image")
    ins = [network.size(f"blocks.{place}.0.deconv0", 0) for place in places]
    return {
        "latent": network.size("linear0", 1),
        "channels": network.size("conv4", 0),
        "num_classes": classes,
        "generator_widths": (*ins, network.size("conv4", 1)),
    }


def _discriminator(network: Network, made: object) -> dict[str, object]:
    """Move a discriminator's tensors and return its settings; `made` is how many classes the generator knows."""
    network.ours = STORED
    places = network.places()
    units = [(f"blocks.{p}.0", f"blocks.{p}.{i}", i) for p in places for i in (0, 1)] + [("", "last", 1)]
    for name, to, number in units:
        dotted = f"{name}." if name else ""
        network.layer(f"{dotted}conv{number}", f"{to}.0")
        if not network.spectral:
            network.batch_norm(f"{dotted}bn{number}", f"{to}.1")
    network.layer("linear1", "linear")
    if projects := network.projects():
        network.layer("embedding", "embedding", bias=False)
    classes = network.classes()
    known = classes if made is None else made
    if projects and classes != known:
        raise WeightsError(f"{network.file} knows {classes} classes, the generator {known}: give networks of one run.")
    outs = [network.size(f"blocks.{place}.0.conv1", 0) for place in places]
    return {
        "channels": network.size("blocks.0.0.conv0", 1),
        "num_classes": known,
        "discriminator_widths": (*outs, network.size("conv1", 0)),
        "spectral_discriminator": network.spectral,
        "projection": projects or not known,
    }


FORMAT = Format(
    name="studiogan_dcgan",
    summary="StudioGAN: DCGAN and others of its deep_conv backbone",
    files=FILES,
    recognise=recognise,
    read=read,
    license="MIT",
)
