"""What a BigGAN is made of: the configuration, and the paper's tables of blocks for each resolution."""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import log2
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from zoo.model import ModelConfig
from zoo_biggan.layers import Spectral

WIDEST = 32_768                              # channels, at most: beyond, a file asks for memory that nobody has
BOTTOM = 4                                   # height and width where the generator starts
Block = tuple[bool, int, int]                # (resamples, channels in, channels out), channels in units of `width`
Multiplier = Annotated[int, Field(ge=0, le=WIDEST)]
Blocks = Annotated[
    tuple[Annotated[tuple[bool, Multiplier, Multiplier], Field(strict=False)], ...], Field(max_length=100)
]

# Channels at 4, 8, 16 ... pixels (Brock et al., 2019, Tables 4 to 9; 16 and 32 as in the authors' CIFAR network).
GENERATOR_WIDTHS = {
    16: (4, 4, 4),
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
# Channels after each stage of the discriminator, and how many of its stages halve the image.
DISCRIMINATOR_WIDTHS = {
    16: ((4, 4, 4), 1),
    32: ((4, 4, 4, 4), 2),
    64: ((1, 2, 4, 8, 16), 4),
    128: ((1, 2, 4, 8, 16, 16), 5),
    256: ((1, 2, 4, 8, 8, 16, 16), 6),
    512: ((1, 1, 2, 4, 8, 8, 16, 16), 7),
}


def paper_generator(resolution: int, deep: bool) -> tuple[Block, ...]:
    """Return the paper's generator: one block a resolution, or two (the first keeps the size) when deep."""
    blocks: list[Block] = []
    for narrow, wide in pairwise(GENERATOR_WIDTHS[resolution]):
        blocks += [(False, narrow, narrow)] if deep else []
        blocks += [(True, narrow, wide)]
    return tuple(blocks)


def paper_discriminator(resolution: int, deep: bool) -> tuple[Block, ...]:
    """Return the paper's discriminator; channels in of the first plain block are 0, which stands for the image."""
    widths, halvings = DISCRIMINATOR_WIDTHS[resolution]
    if not deep:
        return tuple((i < halvings, a, b) for i, (a, b) in enumerate(pairwise((0, *widths))))
    blocks: list[Block] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        blocks += [(i < halvings, a, b), (False, b, b)]
    return tuple(blocks)


def sizes_up(blocks: tuple[Block, ...]) -> list[int]:
    """Return the resolution after each block of a generator."""
    return [BOTTOM * 2**times for times in accumulate(grows for grows, _, _ in blocks)]


def sizes_down(blocks: tuple[Block, ...], resolution: int) -> list[int]:
    """Return the resolution after each block of a discriminator."""
    return [resolution // 2**times for times in accumulate(shrinks for shrinks, _, _ in blocks)]


def attended_up(sizes: list[int], chosen: tuple[int, ...]) -> tuple[int, ...]:
    """Return the blocks of a generator that attention follows: the one that reaches each chosen resolution."""
    return tuple(sorted(sizes.index(size) for size in chosen if size in sizes))


def attended_down(sizes: list[int], chosen: tuple[int, ...]) -> tuple[int, ...]:
    """Return the blocks of a discriminator that attention follows: the last at each chosen resolution."""
    return tuple(sorted(len(sizes) - 1 - sizes[::-1].index(size) for size in chosen if size in sizes))


def _check_chain(name: str, blocks: tuple[Block, ...], width: int) -> None:
    if not blocks or blocks[-1][2] < 1:
        raise ValueError(f"{name} must hold at least one block, and each must give at least 1 unit of channels")
    if (most := max(max(block[1:]) for block in blocks) * width) > WIDEST:
        raise ValueError(f"{name} ask for {most} channels: {WIDEST} is the most")
    for i, (before, after) in enumerate(pairwise(blocks)):
        if before[2] != after[1] or before[2] < 1:
            raise ValueError(f"{name}: block {i} gives {before[2]} units of channels, block {i + 1} takes {after[1]}")


class BigGANConfig(ModelConfig):
    """A BigGAN; what is left out is the paper's network for that resolution."""

    width: int = Field(32, ge=1, le=512, description="channels of one unit: the paper's ch")
    deep: bool = Field(False, description="BigGAN-deep: bottleneck blocks, and the whole latent at every block")
    latent: int | None = Field(
        None, ge=1, le=4096, description="size of z; None: 20 for the head and for each block, or 128 when deep"
    )
    hierarchical: bool = Field(True, description="z reaches every block, not only the head")
    embedding: int = Field(128, ge=0, le=4096, description="size of the shared class embedding; 0: tables in the norms")
    attention: tuple[int, ...] | None = Field(
        None, strict=False, description="resolutions with self-attention; None: half the image's, at most 64"
    )
    norm_eps: float = Field(1e-5, gt=0, le=0.1, description="added to the variance in batch norm")
    statistics: int = Field(
        11, ge=1, le=1001, description="sets of batch-norm statistics, for psi spaced evenly over 0 to 1"
    )
    interpolation: Literal["linear", "swapped"] = Field(
        "linear", description="between two sets of statistics; swapped: weighted as in the released BigGAN-deep code"
    )
    spectral_generator: bool = Field(True, description="spectral norm in the generator; off: weights as they are")
    spectral_discriminator: bool = Field(True, description="spectral norm in the discriminator")
    spectral: Spectral = Field(
        "refined",
        description="what evaluation divides by: the norm after one more power iteration, as the authors' PyTorch code "
        "does, or that of the stored vectors, as torch.nn.utils.spectral_norm does",
    )
    spare_channels: int = Field(
        0, ge=0, le=4096, description="outputs of the last convolution beyond the image's: dropped, but in its norm"
    )
    discriminator_wide: bool = Field(
        True, description="a plain block of the discriminator is as wide inside as its output; off: as its input"
    )
    deep_shortcut: Literal["partial", "convolution"] = Field(
        "partial",
        description="of a deep block: its channels are kept and what is added is learnt, as in the paper; or a 1x1 "
        "convolution gives them all, and the discriminator pools before the last ReLU (StudioGAN)",
    )
    discriminator_rectified: bool = Field(
        False, description="shortcuts of the discriminator start after the block's first ReLU: one that works in place"
    )
    discriminator_batch_norm: bool = Field(False, description="batch norm in the blocks of a plain discriminator")
    projection: bool = Field(True, description="the logit depends on the class, by the product with its embedding")
    orthogonal: float = Field(1e-4, ge=0, le=1, description="weight of orthogonal regularisation of the generator")
    generator_blocks: Blocks | None = Field(
        None, strict=False, description="own blocks (upsamples, channels in, out), channels in units of width"
    )
    discriminator_blocks: Blocks | None = Field(
        None, strict=False, description="own blocks (downsamples, in, out); the first in is 0, or when deep the stem's"
    )
    generator_attention: tuple[int, ...] | None = Field(
        None, strict=False, description="blocks, counted from 0, that attention follows; None: by `attention`"
    )
    discriminator_attention: tuple[int, ...] | None = Field(
        None, strict=False, description="blocks, counted from 0, that attention follows; None: by `attention`"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        own = self.generator_blocks is not None and self.discriminator_blocks is not None
        if self.resolution not in GENERATOR_WIDTHS and not (own and log2(self.resolution).is_integer()):
            known = ", ".join(map(str, GENERATOR_WIDTHS))
            raise ValueError(f"resolution {self.resolution}: BigGAN takes {known}, or any power of two with own blocks")
        self._check_generator()
        self._check_discriminator()
        for side, chosen, count in (
            ("generator", self.generator_attention, len(self.up)),
            ("discriminator", self.discriminator_attention, len(self.down)),
        ):
            if chosen is not None and any(not 0 <= i < count for i in chosen):
                raise ValueError(f"{side}_attention {list(chosen)}: the {side} has blocks 0 to {count - 1}")
        halved = sizes_down(self.down, self.resolution)
        if any(halved[i] < 2 for i in self.attention_down):
            raise ValueError("attention in the discriminator needs at least 2x2 places: move it to an earlier block")
        reached = {size for size in sizes_up(self.up) if size > BOTTOM}
        if unreached := sorted(set(self.attention or ()) - reached):
            raise ValueError(f"attention at {unreached}: possible at {sorted(reached)}")
        return self

    def _check_generator(self) -> None:
        _check_chain("generator_blocks", self.up, self.width)
        if self.up[0][1] < 1:
            raise ValueError("generator_blocks: the first block needs at least 1 unit of channels in")
        if sizes_up(self.up)[-1] != self.resolution:
            needed = round(log2(self.resolution / BOTTOM))
            raise ValueError(f"generator_blocks must upsample {needed} times, from {BOTTOM} to {self.resolution}")
        if self.deep and any(out > into for _, into, out in self.up):
            raise ValueError("generator_blocks of a deep BigGAN may keep or lower the channels, not raise them")
        slots = len(self.up) + 1
        if self.hierarchical and not self.deep and self.latent_size % slots:
            near = max(1, self.latent_size // slots) * slots
            raise ValueError(f"latent {self.latent_size} does not split into {slots} equal parts; {near} does")

    def _check_discriminator(self) -> None:
        _check_chain("discriminator_blocks", self.down, self.width)
        if (self.down[0][1] == 0) == self.deep:
            wanted = "at least 1 (the stem's channels) when deep" if self.deep else "0 (the image)"
            raise ValueError(f"discriminator_blocks: channels in of the first block must be {wanted}")
        if 2 ** sum(down for down, _, _ in self.down) > self.resolution:
            raise ValueError(f"discriminator_blocks halve {self.resolution} pixels too often")
        if self.deep and self.discriminator_batch_norm:
            raise ValueError("discriminator_batch_norm: a deep discriminator has no batch norm")
        if self.deep and any(out < into for _, into, out in self.down):
            raise ValueError("discriminator_blocks of a deep BigGAN may keep or raise the channels, not lower them")

    @property
    def up(self) -> tuple[Block, ...]:
        """The generator's blocks."""
        own = self.generator_blocks
        return paper_generator(self.resolution, self.deep) if own is None else own

    @property
    def down(self) -> tuple[Block, ...]:
        """The discriminator's blocks."""
        own = self.discriminator_blocks
        return paper_discriminator(self.resolution, self.deep) if own is None else own

    @property
    def spectral_up(self) -> Spectral | None:
        """The generator's spectral norm."""
        return self.spectral if self.spectral_generator else None

    @property
    def spectral_down(self) -> Spectral | None:
        """The discriminator's spectral norm."""
        return self.spectral if self.spectral_discriminator else None

    @property
    def latent_size(self) -> int:
        """Numbers in z."""
        return self.latent or (128 if self.deep else 20 * (len(self.up) + 1))

    @property
    def attention_up(self) -> tuple[int, ...]:
        """Blocks of the generator that attention follows."""
        own = self.generator_attention
        return attended_up(sizes_up(self.up), self._resolutions) if own is None else own

    @property
    def attention_down(self) -> tuple[int, ...]:
        """Blocks of the discriminator that attention follows."""
        own = self.discriminator_attention
        return attended_down(sizes_down(self.down, self.resolution), self._resolutions) if own is None else own

    @property
    def _resolutions(self) -> tuple[int, ...]:
        return (min(self.resolution // 2, 64),) if self.attention is None else self.attention
