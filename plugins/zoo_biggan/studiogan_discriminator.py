"""The discriminators of StudioGAN's residual backbones: sizes from the shapes of tensors, and where each tensor goes.

Their ReLU works in place: a block without batch norm, which starts with it, changes what its shortcut takes.
"""

from __future__ import annotations

from itertools import pairwise

from zoo.errors import WeightsError
from zoo.formats.studiogan import Network
from zoo_biggan.config import DISCRIMINATOR_WIDTHS
from zoo_biggan.studiogan_layout import Layout, Side, depth_of, layout, move_attention

# Resolution, channels after the stem and after each stage, and how many stages halve the image.
PLAIN = [(size, *table) for size, table in DISCRIMINATOR_WIDTHS.items() if size >= 32]
DEEP = [*PLAIN, (32, (1, 4, 4, 4), 2)]


def read_discriminator(network: Network) -> Side:
    """Move a discriminator's tensors and return what it is."""
    arranged = layout(network)
    first = arranged.blocks[0]
    deep, normed = "input_conv" in network, not network.spectral and f"{first}.bn1" in network
    if deep:
        network.layer("input_conv", "stem")
    for number, (name, ours) in enumerate(arranged.numbered()):
        _move_block(network, name, ours, 4 if deep else 2)
        if normed:
            _move_norms(network, name, ours, first=number == 0)
    move_attention(network, arranged)
    settings = {
        "channels": network.size("input_conv" if deep else f"{first}.conv2d1", 1),
        "deep": deep,
        "spectral_discriminator": network.spectral,
        "discriminator_rectified": not normed,
        "discriminator_batch_norm": normed,
    }
    sized = _deep(network, arranged) if deep else _plain(network, arranged)
    network.layer("linear1", "linear")
    if projects := network.projects():
        network.layer("embedding", "embedding", bias=False)
    return Side({**settings, **sized.settings}, sized.blocks, sized.attention, network.classes(), projects)


def _move_block(network: Network, name: str, to: str, convolutions: int) -> None:
    for number in range(1, convolutions + 1):
        network.layer(f"{name}.conv2d{number}", f"{to}.conv{number}")
    if f"{name}.conv2d0" in network:
        network.layer(f"{name}.conv2d0", f"{to}.shortcut")


def _move_norms(network: Network, name: str, to: str, first: bool) -> None:
    ours = {"bn1": "norm2"} if first else {"bn1": "norm1", "bn2": "norm2"}
    if f"{name}.conv2d0" in network:
        ours["bn0"] = "norm_shortcut"
    for each, norm in ours.items():
        network.batch_norm(f"{name}.{each}", f"{to}.{norm}")


def _plain(network: Network, arranged: Layout) -> Side:
    """Return the resolution and blocks of a plain discriminator, which the number of its blocks tells."""
    outs = [network.size(f"{name}.conv2d2", 0) for name in arranged.blocks]
    for resolution, widths, halvings in PLAIN:
        if len(widths) == len(outs):
            blocks = [(i < halvings, into, out) for i, (into, out) in enumerate(pairwise((0, *outs)))]
            return Side({"resolution": resolution}, blocks, tuple(arranged.attention))
    raise WeightsError(f"{network.file}: no discriminator of StudioGAN has {len(outs)} blocks.")


def _deep(network: Network, arranged: Layout) -> Side:
    """Return the resolution and blocks of a deep discriminator: those that make a published table of widths."""
    outs = [network.size(f"{name}.conv2d4", 0) for name in arranged.blocks]
    stem = network.size("input_conv", 0)
    for resolution, widths, halvings in DEEP:
        if depth := depth_of(stem, outs, 0, widths):
            halves = [i % depth == 0 and i // depth < halvings for i in range(len(outs))]
            blocks = [(shrinks, *both) for shrinks, both in zip(halves, pairwise((stem, *outs)), strict=True)]
            settings = {"resolution": resolution, "deep_shortcut": _shortcut(network, arranged)}
            return Side(settings, blocks, tuple(arranged.attention))
    shown = ", ".join(map(str, outs))
    raise WeightsError(f"{network.file}: no deep discriminator of StudioGAN has blocks of {shown[:60]} channels.")


def _shortcut(network: Network, arranged: Layout) -> str:
    """Return which shortcuts a deep discriminator has; one that never learns any has partial ones."""
    for name in arranged.blocks:
        if f"{name}.conv2d0" in network:
            whole = network.size(f"{name}.conv2d0", 0) == network.size(f"{name}.conv2d4", 0)
            return "convolution" if whole else "partial"
    return "partial"
