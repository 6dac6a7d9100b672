"""A set of images, all of one size: in memory when it fits, decoded on demand when it does not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.decode import reason
from zoo.data.sources import Pixels, Source
from zoo.errors import DataError

log = logging.getLogger("zoo")
PATIENCE = 100           # unreadable images in a row before an on-demand set gives up
BLOCK = 4096             # images queued for the pool at a time

T = TypeVar("T")


class ImageSet:
    """Images as uint8 [n, C, H, W], read by index. Open one with `zoo.data.open_images`.

    Attributes: `name`; `resolution`; `channels`; `labels` int64 [n] or None; `classes`, the names of the labels;
    `skipped`, (name, reason) of every file that could not be read so far.

    A set whose pixels fit in `memory` bytes is decoded once, and files that fail are left out. In a larger one every
    read decodes, and a file that fails is replaced by the next readable one (with that one's label).
    """

    def __init__(self, source: Source, *, resolution: int, channels: int, workers: int, memory: int):
        self.name, self.resolution, self.channels = source.name, resolution, channels
        self.classes, self.labels = source.classes, source.labels
        self._source = source
        self._skipped = dict(source.refused)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="zoo-data") if workers else None
        self._size = len(source.names)
        self._lock = threading.Lock()
        self._watching = False                 # set once open: a failure is then reported at once
        self._pixels: Tensor | None = None
        if self._size * channels * resolution**2 <= memory:
            self._decode_all()
        else:
            self._first_readable(0)
        self._report()

    def __len__(self) -> int:
        return self._size

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(self._skipped.items()))

    @property
    def in_memory(self) -> bool:
        """Whether every image is decoded already, so that reading is only a copy."""
        return self._pixels is not None

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 over the sorted names and sizes of the files, and over their contents when these are at most 1 GiB.

        It does not depend on resolution, channels, or on which files could be decoded. For `emoji` it covers names
        and pixels of the chosen tiles, for a Hub data set the fingerprint that `datasets` gives it.
        """
        return self._source.fingerprint()

    def read(self, indices: Sequence[int]) -> Tensor:
        """Return the images at these places, uint8 [N, C, H, W]."""
        return self.rows(indices)[0]

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Return images uint8 [N, C, H, W] and their labels int64 [N], or None without classes."""
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self._size):
            raise IndexError(f"{self.name} has images 0 to {self._size - 1}, not {wanted.min()} to {wanted.max()}")
        if self._pixels is not None:
            images = self._pixels[torch.from_numpy(wanted)]
        else:
            found = list(self._map(self._first_readable, wanted.tolist()))
            images = torch.stack([_tensor(pixels) for _, pixels in found]) if found else self._empty()
            wanted = np.array([index for index, _ in found], dtype=np.int64)
        return images, None if self.labels is None else torch.from_numpy(self.labels[wanted])

    def _decode_all(self) -> None:
        pixels = torch.empty(self._size, self.channels, self.resolution, self.resolution, dtype=torch.uint8)
        good = np.zeros(self._size, dtype=bool)

        def place(index: int) -> None:
            decoded = self._decode(index)
            if decoded is not None:
                pixels[index], good[index] = _tensor(decoded), True

        for first in range(0, self._size, BLOCK):
            list(self._map(place, range(first, min(first + BLOCK, self._size))))
        if not good.any():
            raise DataError(self._all_failed())
        if not good.all():
            pixels = pixels[torch.from_numpy(good)]
            self.labels = None if self.labels is None else self.labels[good]
        self._pixels, self._size = pixels, len(pixels)

    def _decode(self, index: int) -> Pixels | None:
        try:
            return self._source.image(index, resolution=self.resolution, channels=self.channels)
        except Exception as error:  # whatever a broken file makes Pillow raise: named, and passed over
            self._skip(self._source.names[index], reason(error))
            return None

    def _first_readable(self, index: int) -> tuple[int, Pixels]:
        for step in range(min(PATIENCE, self._size)):
            decoded = self._decode((index + step) % self._size)
            if decoded is not None:
                return (index + step) % self._size, decoded
        raise DataError(self._all_failed())

    def _map(self, function: Callable[[int], T], indices: Iterable[int]) -> Iterable[T]:
        return self._pool.map(function, indices) if self._pool else map(function, indices)

    def _skip(self, name: str, why: str) -> None:
        with self._lock:
            first_time = name not in self._skipped
            self._skipped.setdefault(name, why)
        if first_time and self._watching:
            log.warning("%s: %s cannot be read (%s); another image takes its place.", self.name, name, why)

    def _report(self) -> None:
        self._watching = True
        if not self._skipped:
            return
        shown = "; ".join(f"{name} ({why})" for name, why in self.skipped[:3])
        more = f"; and {len(self._skipped) - 3} more" if len(self._skipped) > 3 else ""
        counts = f"{len(self._skipped)} files skipped, {self._size} images left"
        log.warning("%s: %s: %s%s", self.name, counts, shown, more)

    def _all_failed(self) -> str:
        name, why = self.skipped[0]
        return f"no image in {self.name} can be read; {len(self._skipped)} files failed, such as {name}: {why}."

    def _empty(self) -> Tensor:
        return torch.empty(0, self.channels, self.resolution, self.resolution, dtype=torch.uint8)


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """[H, W, C] -> [C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def normalise(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W] -> float32 in [-1, 1]."""
    return images.to(torch.float32).div_(127.5).sub_(1.0)
