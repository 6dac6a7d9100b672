"""What both networks of StudioGAN's residual backbones share: the numbering of blocks, attention, tables of widths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zoo.errors import WeightsError
from zoo.formats.studiogan import Network
from zoo_biggan.config import Block


@dataclass(frozen=True)
class Side:
    """What one network is."""

    settings: dict[str, object]           # those that both networks or only this one know
    blocks: list[Block]                   # (resamples, channels in, channels out)
    attention: tuple[int, ...]            # blocks that attention follows
    classes: int = 0                      # of a discriminator: those that its head knows
    projects: bool = False                # of a discriminator: the logit depends on the class


@dataclass(frozen=True)
class Layout:
    """A file's blocks, which it numbers together with its attention: ``blocks.2.0`` may be either."""

    blocks: tuple[str, ...]               # what the file calls each block of ours
    attention: dict[int, str]             # block of ours that attention follows -> what the file calls the attention

    def numbered(self) -> Iterator[tuple[str, str]]:
        """Return (its name, our name) of each block."""
        return ((name, f"blocks.{number}") for number, name in enumerate(self.blocks))


def layout(network: Network) -> Layout:
    """Return how a file's blocks are arranged.

    Raises:
        WeightsError: a block is missing.
    """
    blocks: list[str] = []
    attention: dict[int, str] = {}
    for place in network.places():
        name = f"blocks.{place}.0"
        if f"{name}.conv1x1_theta" in network:
            attention[len(blocks) - 1] = name
        else:
            blocks.append(name)
    if not blocks or -1 in attention:
        raise WeightsError(f"{network.file}: tensors 'blocks.0.0.conv2d1...' are missing: the file is incomplete.")
    return Layout(tuple(blocks), attention)


def move_attention(network: Network, arranged: Layout) -> None:
    """Move every self-attention."""
    for number, name in arranged.attention.items():
        for theirs, ours in (("theta", "theta"), ("phi", "phi"), ("g", "g"), ("attn", "o")):
            network.layer(f"{name}.conv1x1_{theirs}", f"attention.{number}.{ours}", bias=False)
        network.part.move(f"{name}.sigma", f"attention.{number}.gamma", lambda sigma: sigma.reshape(()))


def depth_of(first: int, outs: Sequence[int], ends: int, table: Sequence[int]) -> int | None:
    """Return how many blocks a resolution has, if that makes a published table of widths, else None.

    Args:
        first: channels that the first block takes.
        outs: channels that each block gives.
        ends: which block of a resolution gives its new channels: 0 the first, -1 the last.
        table: channels in some unit: what the first block takes, and what each resolution gives.
    """
    depth, rest = divmod(len(outs), len(table) - 1)
    if rest or not depth:
        return None
    widths = (first, *outs[ends % depth :: depth])
    return depth if all(a * table[0] == first * b for a, b in zip(widths, table, strict=True)) else None
