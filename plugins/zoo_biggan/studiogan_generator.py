"""The generators of StudioGAN's residual backbones: sizes from the shapes of tensors, and where each tensor goes."""

from __future__ import annotations

import re

import torch

from zoo.errors import WeightsError
from zoo.formats.studiogan import Network
from zoo_biggan.config import BOTTOM, GENERATOR_WIDTHS
from zoo_biggan.studiogan_layout import Side, depth_of, layout, move_attention

# Channels at 4, 8, 16 ... pixels, of the deep backbones; at 64 pixels they differ from the paper's.
WIDTHS = {size: widths for size, widths in GENERATOR_WIDTHS.items() if size >= 32} | {64: (16, 8, 4, 2, 1)}


def read_generator(network: Network, classes: int) -> Side:
    """Move a generator's tensors and return what it is; `classes` are those that the discriminator knows, 0 if none."""
    arranged = layout(network)
    first = arranged.blocks[0]
    deep = f"{first}.conv2d4" in network
    learnt = deep and f"{first}.conv2d0" in network
    condition = _condition(network, len(arranged.blocks), deep, classes)
    looked_up = bool(condition["num_classes"]) and not condition["embedding"]
    for name, ours in arranged.numbered():
        _move_block(network, name, ours, 4 if deep else 2, looked_up)
        if learnt or not deep:
            network.layer(f"{name}.conv2d0", f"{ours}.shortcut")
    move_attention(network, arranged)
    network.layer("linear0", "linear")
    if "shared" in network:
        network.part.move("shared.weight", "embedding.weight")
    _move_norm(network, "bn4", "norm", looked_up)
    network.layer("conv2d5", "to_image")
    ins = [network.size(f"{name}.conv2d1", 1) for name in arranged.blocks]
    outs = [network.size(f"{name}.conv2d{4 if deep else 2}", 0) for name in arranged.blocks]
    depth = _depth(network, ins[0], outs) if deep else 1
    settings = {
        "resolution": BOTTOM << len(outs) // depth,
        "channels": network.size("conv2d5", 0),
        "deep": deep,
        **condition,
        **({"deep_shortcut": "convolution" if learnt else "partial"} if deep else {}),
        "spectral_generator": network.spectral,
    }
    blocks = [((i + 1) % depth == 0, into, out) for i, (into, out) in enumerate(zip(ins, outs, strict=True))]
    return Side(settings, blocks, tuple(arranged.attention))


def _condition(network: Network, blocks: int, deep: bool, classes: int) -> dict[str, object]:
    """Return the settings that say what the latent is and what the norms are given.

    A norm's gain takes: [class embedding, part of z] or a part of z alone (big_resnet), [class embedding, z] (deep), a
    class embedding or a one-hot class (two states of resnet); older files have tables of gains; or there is none.
    """
    head, norm = network.size("linear0", 1), "blocks.0.0.bn1"
    shared = network.size("shared", 1, plain=True) if "shared" in network else 0
    known = network.size("shared", 0, plain=True) if shared else 0
    if deep:
        return {"num_classes": known, "embedding": shared, "hierarchical": True, "latent": head - shared}
    if f"{norm}.gain" in network:
        taken = network.size(f"{norm}.gain", 1)
        one_hot = not shared and classes == taken       # as many classes as numbers in z: the discriminator tells
        if taken == shared + head and not one_hot:
            return {"num_classes": known, "embedding": shared, "hierarchical": True, "latent": head * (blocks + 1)}
        if shared and taken != shared:
            name = network.weight(f"{norm}.gain")
            raise WeightsError(
                f"{network.file}: tensor {name!r} takes {taken} numbers, expected {shared} (a class) or "
                f"{shared + head} (a class and a part of z)."
            )
        known = known or taken
    elif f"{norm}.embed0" in network:
        known = network.size(f"{norm}.embed0", 0)
    return {"num_classes": known, "embedding": shared, "hierarchical": False, "latent": head}


def _depth(network: Network, first: int, outs: list[int]) -> int:
    """Return how many blocks a resolution has: the number that makes the published table of widths."""
    found = [depth for table in WIDTHS.values() if (depth := depth_of(first, outs, -1, table))]
    if not found:
        shown = ", ".join(map(str, outs))
        raise WeightsError(f"{network.file}: no deep generator of StudioGAN has blocks of {shown[:60]} channels.")
    return found[0]


def _move_block(network: Network, name: str, to: str, convolutions: int, looked_up: bool) -> None:
    for number in range(1, convolutions + 1):
        _move_norm(network, f"{name}.bn{number}", f"{to}.norm{number}", looked_up)
        network.layer(f"{name}.conv2d{number}", f"{to}.conv{number}")


def _move_norm(network: Network, name: str, to: str, looked_up: bool) -> None:
    """Move a batch norm with gain and bias of its own, or with ones that are linear in a condition or looked up."""
    part, statistics = network.part, f"{name}.bn"
    if f"{name}.gain" in network:
        for each in ("gain", "bias"):
            if looked_up:                       # our tables have no spectral norm: theirs is divided out
                network.folded(f"{name}.{each}", f"{to}.{each}", bias=False)
            else:
                network.layer(f"{name}.{each}", f"{to}.{each}", bias=False)
    elif f"{name}.embed0" in network:
        network.folded(f"{name}.embed0", f"{to}.gain", torch.t, bias=False)
        network.folded(f"{name}.embed1", f"{to}.bias", torch.t, bias=False)
    else:
        statistics = name
        part.move(f"{name}.weight", f"{to}.gain")
        part.move(f"{name}.bias", f"{to}.bias")
    part.move(f"{statistics}.running_mean", f"{to}.mean", lambda mean: mean.unsqueeze(0))
    part.move(f"{statistics}.running_var", f"{to}.var", lambda var: var.unsqueeze(0))
    part.leave(re.escape(f"{statistics}.num_batches_tracked"))
