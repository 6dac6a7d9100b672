"""The networks of ajbrock/BigGAN-PyTorch: sizes from the shapes of tensors, and where each tensor goes.

- Evaluation divides a weight by its norm after one more power iteration from u0, as ours does; `sv0` is a log.
- Without a shared embedding the norms look gains and biases up in tables [classes, channels], without spectral norm.
- Batch norm keeps its statistics as stored_mean (of the norm, or of its `bn` with --mybn) or, with --cross_replica, as
  running_mean. The authors' evaluation of the latter adds the gain where their training multiplies by it (issue 96 of
  their repository); here it multiplies.
- --mybn can accumulate statistics over batches. They are then sums, whose count lies beside them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Part
from zoo_biggan.config import DISCRIMINATOR_WIDTHS, GENERATOR_WIDTHS, Block

SMALLEST = 32                                       # pixels of the authors' smallest network


class Reader:
    """Moves what generator and discriminator have in common."""

    def __init__(self, part: Part):
        self.part = part
        self.deep = self.has("blocks.0.0.conv4.")
        self.spectral = any(name.endswith(".u0") for name in part)

    def has(self, prefix: str) -> bool:
        """Return whether the file knows a layer: one that lacks a tensor is then refused by that name."""
        return any(name.startswith(prefix) for name in self.part)

    def layer(self, theirs: str, ours: str, bias: bool = True) -> None:
        """Move a linear layer or a convolution."""
        self.part.move_layer(theirs, ours, bias=bias)
        if self.spectral:
            self.part.move(f"{theirs}.u0", f"{ours}.u", lambda u: u.squeeze(0))

    def convolutions(self, theirs: str, ours: str) -> None:
        """Move a block's convolutions and its shortcut, if that has one."""
        for k in range(1, 5 if self.deep else 3):
            self.layer(f"{theirs}.conv{k}", f"{ours}.conv{k}")
        if self.has(f"{theirs}.conv_sc."):
            self.layer(f"{theirs}.conv_sc", f"{ours}.shortcut")

    def attention(self, theirs: str, ours: str) -> None:
        """Move a block of self-attention."""
        for name in ("theta", "phi", "g", "o"):
            self.layer(f"{theirs}.{name}", f"{ours}.{name}", bias=False)
        self.part.move(f"{theirs}.gamma", f"{ours}.gamma", lambda gamma: gamma.reshape(()))

    def channels(self, block: str) -> tuple[int, int]:
        """Return how many channels a block takes and gives."""
        last = "conv4" if self.deep else "conv2"
        return self.part.shape(f"{block}.conv1.weight", 4)[1], self.part.shape(f"{block}.{last}.weight", 4)[0]


def _count(part: Part, before: str, after: str) -> int:
    """Return how many numbers from 0 stand between these parts of names; one that is missing is among them."""
    pattern = re.compile(re.escape(before) + r"(\d{1,4})" + re.escape(after))
    return 1 + max((int(found[1]) for name in part if (found := pattern.match(name))), default=-1)


# The generator.


class GeneratorReader(Reader):
    """A generator: its sizes, and where its tensors go."""

    def __init__(self, part: Part):
        super().__init__(part)
        through = [self.channels(f"blocks.{i}.0") for i in range(_count(part, "blocks.", ".0."))]
        self.resolution, depth = self._stages(through)
        self.blocks: tuple[Block, ...] = tuple((i % depth == depth - 1, a, b) for i, (a, b) in enumerate(through))
        self.attended = tuple(i for i in range(len(through)) if self.has(f"blocks.{i}.1."))
        rows, condition = part.shape("blocks.0.0.bn1.gain.weight", 2)
        self.shared = "shared.weight" in part or condition != through[0][0]      # a table is [classes, channels]
        self.classes, self.embedding = part.shape("shared.weight", 2) if self.shared else (rows, 0)
        head = part.shape("linear.weight", 2)[1]
        self.hierarchical = self.deep or (self.shared and condition > self.embedding)
        slots = len(through) + 1 if self.hierarchical and not self.deep else 1
        self.latent = head - self.embedding if self.deep else head * slots
        self.colours = part.shape("output_layer.2.weight", 4)[0]

    def _stages(self, through: list[tuple[int, int]]) -> tuple[int, int]:
        """Return the resolution, and the blocks of a stage: the last of each doubles the size."""
        for resolution, widths in GENERATOR_WIDTHS.items():
            stages = len(widths) - 1
            depth, rest = divmod(len(through), stages)
            if resolution < SMALLEST or rest or not depth or (depth > 1 and not self.deep):
                continue
            stage_ends = [through[i * depth + depth - 1][1] for i in range(stages)]
            unit = through[0][0] // widths[0]
            if [through[0][0], *stage_ends] == [unit * width for width in widths]:
                return resolution, depth
        last = f"blocks.{len(through) - 1}.0.conv1.weight"
        raise WeightsError(f"{self.part.file}: the blocks up to tensor {last!r} are of no network of this code.")

    def move(self) -> None:
        """Move every tensor."""
        if self.shared:
            self.part.move("shared.weight", "embedding.weight")
        self.layer("linear", "linear")
        for i in range(len(self.blocks)):
            for k in range(1, 5 if self.deep else 3):
                self._conditional(f"blocks.{i}.0.bn{k}", f"blocks.{i}.norm{k}")
            self.convolutions(f"blocks.{i}.0", f"blocks.{i}")
            if i in self.attended:
                self.attention(f"blocks.{i}.1", f"attention.{i}")
        self.part.move("output_layer.0.gain", "norm.gain")
        self.part.move("output_layer.0.bias", "norm.bias")
        self._statistics("output_layer.0", "norm")
        self.layer("output_layer.2", "to_image")
        self.part.leave(r".+\.sv\d+", r".+\.u[1-9]\d*", r".+\.num_batches_tracked", r".+\.accumulation_counter")

    def _conditional(self, theirs: str, ours: str) -> None:
        for name in ("gain", "bias"):
            if self.shared:
                self.layer(f"{theirs}.{name}", f"{ours}.{name}", bias=False)
            else:
                self.part.move(f"{theirs}.{name}.weight", f"{ours}.{name}.weight", lambda table: table.T)
        self._statistics(theirs, ours)

    def _statistics(self, theirs: str, ours: str) -> None:
        kept = (f"{theirs}.stored", f"{theirs}.bn.stored", f"{theirs}.bn.running")
        prefix = next((name for name in kept if f"{name}_mean" in self.part), kept[0])
        row = _row(self._accumulated(f"{theirs}.bn.accumulation_counter"))
        for name in ("mean", "var"):
            self.part.move(f"{prefix}_{name}", f"{ours}.{name}", row)

    def _accumulated(self, counter: str) -> float:
        """Return the number of batches that statistics are sums over; 1 for averages.

        A count that is not whole is left from before: averages over training moved on, and it with them.
        """
        count = float(self.part.peek(counter).reshape(-1)[0]) if counter in self.part else 0.0
        return count if count >= 1 and count.is_integer() else 1.0


def _row(count: float) -> Callable[[Tensor], Tensor]:
    """Return the change from sums over `count` batches [channels] to means [1, channels]."""
    return lambda sums: sums[None] / count


# The discriminator.


@dataclass(frozen=True)
class Stage:
    """One entry of the list of blocks: how many blocks, and their channels in and out."""

    depth: int
    inputs: int
    outputs: int


class DiscriminatorReader(Reader):
    """A discriminator: its sizes, and where its tensors go. A deep one has several blocks in a stage."""

    def __init__(self, part: Part):
        super().__init__(part)
        stages = []
        for i in range(_count(part, "blocks.", ".0.")):
            depth = _count(part, f"blocks.{i}.", ".conv") if self.deep else 1
            stages.append(Stage(depth, self.channels(f"blocks.{i}.0")[0], self.channels(f"blocks.{i}.{depth - 1}")[1]))
        self.stages = tuple(stages)
        self.resolution, halvings = self._size()
        self.colours = part.shape("input_conv.weight" if self.deep else "blocks.0.0.conv1.weight", 4)[1]
        blocks: list[Block] = []
        for i, stage in enumerate(stages):
            first = stage.inputs if i or self.deep else 0               # 0 stands for the image
            blocks += [(i < halvings, first, stage.outputs)]
            blocks += [(False, stage.outputs, stage.outputs)] * (stage.depth - 1)
        self.blocks = tuple(blocks)
        self.attended = tuple(
            sum(stage.depth for stage in stages[: i + 1]) - 1
            for i, stage in enumerate(stages)
            if self.has(f"blocks.{i}.{stage.depth}.")
        )
        self.classes = part.shape("embed.weight", 2)[0]
        inner = [part.shape(f"blocks.{i}.0.conv1.weight", 4)[0] for i in range(len(stages))]
        self.wide = self.deep or inner == [stage.outputs for stage in stages]

    def _size(self) -> tuple[int, int]:
        """Return the resolution, and how many stages halve it."""
        chain = [self.stages[0].inputs] if self.deep else []
        chain += [stage.outputs for stage in self.stages]
        for resolution, (widths, halvings) in DISCRIMINATOR_WIDTHS.items():
            unit = chain[0] // widths[0]
            if resolution >= SMALLEST and chain == [unit * width for width in widths]:
                return resolution, halvings
        last = f"blocks.{len(self.stages) - 1}.0.conv1.weight"
        raise WeightsError(f"{self.part.file}: the blocks up to tensor {last!r} are of no network of this code.")

    def move(self) -> None:
        """Move every tensor."""
        if self.deep:
            self.layer("input_conv", "stem")
        place = 0
        for i, stage in enumerate(self.stages):
            for k in range(stage.depth):
                self.convolutions(f"blocks.{i}.{k}", f"blocks.{place}")
                place += 1
            if place - 1 in self.attended:
                self.attention(f"blocks.{i}.{stage.depth}", f"attention.{place - 1}")
        self.layer("linear", "linear")
        self.layer("embed", "embedding", bias=False)
        self.part.leave(r".+\.sv\d+", r".+\.u[1-9]\d*")
