"""How public code names the stages of a DCGAN: from the names in a file to its layers in order.

All of them are the same two networks. A naming yields, for each possible depth, the names that a whole file would have;
the file is of the layout that its own names differ least from. So a tensor that is missing, or one too many, leaves
the layout recognised, and can be told by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product, starmap, zip_longest

from torch import Tensor

DEPTHS = range(3, 11)      # convolutions of a network: 16x16 to 1024x1024
MOST = 80                  # tensors; the deepest network has fewer, and other files need not be searched
NORM = ("weight", "bias", "running_mean", "running_var")      # of a batch norm


@dataclass(frozen=True)
class Stage:
    """A convolution and the batch norm behind it, by their names in the file."""

    conv: str
    norm: str = ""         # "": there is none


@dataclass(frozen=True)
class Layout:
    """A network's stages, in the order in which latents or images pass them."""

    network: str           # "generator" or "discriminator"
    stages: tuple[Stage, ...]

    def tensors(self) -> set[str]:
        """Return the names of the tensors that each such network has: not biases of convolutions, nor counters."""
        convs = {f"{stage.conv}.weight" for stage in self.stages}
        norms = {stage.norm for stage in self.stages if stage.norm}
        return convs | {f"{norm}.{name}" for norm in norms for name in NORM}


Naming = Callable[[Mapping[str, Tensor]], Iterator[Layout]]


def recognised(tensors: Mapping[str, Tensor]) -> Layout | None:
    """Return the layout that the names come nearest to, or None if that is not near."""
    if len(tensors) > MOST:
        return None
    possible = [layout for naming in NAMINGS for layout in naming(tensors)]
    best = min(possible, key=lambda layout: _differences(layout, tensors), default=None)
    return best if best and 2 * _differences(best, tensors) < len(tensors) else None


def _differences(layout: Layout, tensors: Mapping[str, Tensor]) -> int:
    """Return how many tensors are missing or unknown."""
    expected = layout.tensors()
    optional = {f"{stage.conv}.bias" for stage in layout.stages}
    optional |= {f"{stage.norm}.num_batches_tracked" for stage in layout.stages}
    return len(expected - tensors.keys()) + len(tensors.keys() - expected - optional)


def generator(convs: Iterable[str], norms: Iterable[str]) -> Layout:
    """Return a generator's layout: a batch norm behind each convolution but the last."""
    return Layout("generator", tuple(starmap(Stage, zip_longest(convs, norms, fillvalue=""))))


def discriminator(convs: Iterable[str], norms: Iterable[str]) -> Layout:
    """Return a discriminator's layout: a batch norm behind each convolution but the first and the last."""
    return Layout("discriminator", tuple(starmap(Stage, zip_longest(convs, ["", *norms], fillvalue=""))))


def _sequential(tensors: Mapping[str, Tensor]) -> Iterator[Layout]:
    """One nn.Sequential: `main` in the PyTorch examples and tutorial, `model` in huggan's; activations count too."""
    for stem, n in product(_stems(tensors, r"(.*?)\d+"), DEPTHS):
        yield generator(
            [f"{stem}{3 * i}" for i in range(n)],
            [f"{stem}{3 * i + 1}" for i in range(n - 1)],
        )
        yield discriminator(
            [f"{stem}0", *(f"{stem}{3 * i - 1}" for i in range(1, n))],
            [f"{stem}{3 * i}" for i in range(1, n - 1)],
        )


def _blocks(tensors: Mapping[str, Tensor]) -> Iterator[Layout]:
    """An nn.Sequential of blocks (`net.0.0` a convolution, `net.0.1` its batch norm) and of single convolutions."""
    for stem, n in product(_stems(tensors, r"(.*?)\d+\.[01]"), DEPTHS):
        yield generator(
            [*(f"{stem}{i}.0" for i in range(n - 1)), f"{stem}{n - 1}"],
            [f"{stem}{i}.1" for i in range(n - 1)],
        )
        yield discriminator(      # 1 is the activation behind the first
            [f"{stem}0", *(f"{stem}{i}.0" for i in range(2, n)), f"{stem}{n}"],
            [f"{stem}{i}.1" for i in range(2, n)],
        )


def _attributes(tensors: Mapping[str, Tensor]) -> Iterator[Layout]:
    """Attributes with numbers: `convTr1` and `batchNorm1`, `tconv1` and `bn1`, `convtr1` and `convtr1_bn`, ..."""
    patterns = [*_patterns(tensors, ndim=4), *_patterns(tensors, ndim=1)]
    if len(patterns) != 2 or patterns[0] == patterns[1]:
        return
    conv, norm = patterns
    for first, n in product((0, 1), DEPTHS):
        convs = [conv.format(first + i) for i in range(n)]
        yield generator(convs, [norm.format(first + i) for i in range(n - 1)])
        for second in (first + 1, first):      # batch norms have the number of their convolution, or are counted alone
            yield discriminator(convs, [norm.format(second + i) for i in range(n - 2)])


def _gan_zoo(tensors: Mapping[str, Tensor]) -> Iterator[Layout]:
    """facebookresearch/pytorch_GAN_zoo; all convolutions are called `convTranspose`, its discriminator counts down."""
    for n in DEPTHS:
        ups, downs = range(1, n - 1), range(n - 3, -1, -1)
        yield generator(
            ["formatLayer", *(f"main.convTranspose{i}" for i in ups), "main.outlayer"],
            [f"main.batchNorm{i}" for i in (0, *ups)],
        )
        yield discriminator(
            [f"main.convTranspose{n - 2}", *(f"main.convTranspose{i}" for i in downs), "decisionLayer"],
            [f"main.batchNorm{i}" for i in downs],
        )


def _wgan(tensors: Mapping[str, Tensor]) -> Iterator[Layout]:
    """martinarjovsky/WassersteinGAN: names with channels, `main.pyramid:512-256:convt`; with dots before torch 0.4."""
    modules = {_module(name) for name in tensors}
    first = [name for name in modules if re.fullmatch(r".*initial[.:].*\d+-\d+.*", name)]
    last = [match for name in modules if (match := re.fullmatch(r"(.*)final([.:])(\d+)-\d+[.:](convt?)", name))]
    if len(first) != 1 or len(last) != 1:
        return
    stem, s, inner, kind = last[0].groups()
    for n in DEPTHS:      # the last convolution's input is the generator's narrowest, the discriminator's widest
        widths = [int(inner) << i if kind == "convt" else int(inner) >> i for i in reversed(range(n - 1))]
        convs = [first[0], *(f"{stem}pyramid{s}{a}-{b}{s}{kind}" for a, b in pairwise(widths)), last[0][0]]
        norms = [f"{stem}pyramid{s}{width}{s}batchnorm" for width in widths[1:]]
        if kind == "convt":
            yield generator(convs, [f"{stem}initial{s}{widths[0]}{s}batchnorm", *norms])
        else:
            yield discriminator(convs, norms)


NAMINGS: tuple[Naming, ...] = (_sequential, _blocks, _attributes, _gan_zoo, _wgan)


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _stems(tensors: Mapping[str, Tensor], pattern: str) -> list[str]:
    """Return what stands before the number in the names of the modules, sorted."""
    matches = (re.fullmatch(pattern, _module(name)) for name in tensors)
    return sorted({match[1] for match in matches if match})


def _patterns(tensors: Mapping[str, Tensor], *, ndim: int) -> set[str]:
    """Return the names of modules whose weight has that many axes, with {} for the number in them."""
    weights = (name for name, tensor in tensors.items() if tensor.ndim == ndim)
    matches = (re.fullmatch(r"([^{}]*?)\d+([^\d{}]*)\.weight", name) for name in weights)
    return {f"{match[1]}{{}}{match[2]}" for match in matches if match}
