"""A set of images, all of one size: kept decoded when that pays, else decoded on demand."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from zoo.data.cache import decoded
from zoo.data.order import Places
from zoo.data.reader import Progress, Reader
from zoo.data.sources import Pixels, Source
from zoo.errors import DataError

log = logging.getLogger("zoo")
A_FILE = 8 << 10         # bytes: what opening a file and starting a decoder cost, in bytes decoded in that time
HELD = 0.25              # share of a device's free memory that images may take
BLOCK = 4096             # images copied to a device at a time


class Stored(Protocol):
    """Decoded images."""

    kept: Places         # index in the source of each row, rising

    def take(self, rows: Places) -> tuple[Pixels, Places]:
        """Return images [N, C, H, W], and which of the N are damaged."""


class InMemory:
    """Decoded images in this process's memory."""

    def __init__(self, pixels: Pixels, kept: Places):
        self.pixels, self.kept = pixels, kept

    def take(self, rows: Places) -> tuple[Pixels, Places]:
        return np.take(self.pixels, rows, axis=0), np.empty(0, dtype=np.int64)


class ImageSet:
    """Images as uint8 [n, C, H, W], read by index. Open one with `zoo.data.open_images`.

    Attributes: `name`; `resolution`; `channels`; `labels` int64 [n] or None; `classes`, the names of the labels;
    `skipped`, (name, reason) of every file that could not be read so far; `device` of what is read; `groups`, the
    sizes of groups of images that are only fetched together, or None.

    A set whose pixels fit in `memory` bytes leaves out files that fail. In a larger one such a file is replaced by the
    next readable one (with that one's label), whether images are decoded on demand or kept decoded in zoo's home:
    what is shown at a step does not depend on whether there was room for that.
    """

    def __init__(
        self,
        source: Source,
        *,
        resolution: int,
        channels: int,
        workers: int,
        memory: int,
        cache: int | None,
        progress: Progress | None,
    ):
        self.name, self.resolution, self.channels = source.name, resolution, channels
        self.classes, self.labels, self.groups = source.classes, source.labels, source.groups
        self.in_memory = False       # whether every image is at hand, so that reading is only a copy
        self.device = torch.device("cpu")
        self._source, self._size = source, len(source.names)
        self._reader = Reader(source, resolution=resolution, channels=channels, workers=workers)
        self._stored: Stored | None = None
        self._places: Places | None = None     # index in the source of each image; None: its own
        self._held: Tensor | None = None       # all pixels on `device`
        if source.groups is None:
            self._store(memory, cache, progress)
        if self._stored is None:
            self._reader.readable(0)
        self._report()
        self._reader.watching = True

    def __len__(self) -> int:
        return self._size

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(self._reader.skipped().items()))

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 over the sorted names and sizes of the files, and over their contents when these are at most 1 GiB.

        It does not depend on resolution, channels, or on which files could be decoded. For `emoji` it covers names
        and pixels of the chosen tiles, for a Hub data set the fingerprint that `datasets` gives it, for a streamed one
        its commit and its files.
        """
        return getattr(self._stored, "fingerprint", "") or self._source.fingerprint()

    def read(self, indices: Sequence[int] | Places) -> Tensor:
        """Return the images at these places, uint8 [N, C, H, W]."""
        return self.rows(indices)[0]

    def rows(self, indices: Sequence[int] | Places) -> tuple[Tensor, Tensor | None]:
        """Return images uint8 [N, C, H, W] and their labels int64 [N], or None without classes."""
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self._size):
            raise IndexError(f"{self.name} has images 0 to {self._size - 1}, not {wanted.min()} to {wanted.max()}")
        if self._held is not None:
            images = self._held[torch.from_numpy(wanted).to(self.device)]
            return images, self.labels_of(wanted)
        places = wanted.copy() if self._places is None else self._places[wanted]
        pixels = self._decode(places) if self._stored is None else self._take(self._stored, places)
        labels = self._source.labels
        return torch.from_numpy(pixels), None if labels is None else torch.from_numpy(labels[places])

    def labels_of(self, indices: Sequence[int] | Places) -> Tensor | None:
        """Return the labels int64 [N] of the images at these places, or None without classes. No image is read."""
        return None if self.labels is None else torch.from_numpy(self.labels[np.asarray(indices, dtype=np.int64)])

    def only(self, rows: Places) -> ImageSet:
        """Return the set of these images alone, by their places in rising order; what is decoded is shared."""
        part = copy(self)
        places = np.arange(self._size) if self._places is None else self._places
        part._places, part._size = places[rows], len(rows)
        part.labels = None if self.labels is None else self.labels[rows]
        part._held = None if self._held is None else self._held[torch.from_numpy(rows).to(self.device)]
        return part

    def expect(self, indices: Sequence[int] | Places) -> None:
        """Tell the source which images will be read soon."""
        self._source.expect(indices)

    def to(self, device: torch.device | str, *, free: int | None = None) -> ImageSet:
        """Return the set held on a device, where it is read without a copy from the host.

        Returns the set itself where it is held there already, where it takes more than a quarter of the device's free
        memory (`free` bytes; None: ask the device), where it is not decoded yet, or where the device is the host itself
        and nothing else is said.
        """
        device = torch.device(device)
        if self._held is not None and self.device == device:
            return self
        shape = (self._size, self.channels, self.resolution, self.resolution)
        free = free_memory(device) if free is None else free
        if self._stored is None or int(np.prod(shape)) > free * HELD:
            return self
        try:
            pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError:       # in pieces too small for it: the images stay where they are
            return self
        for first in range(0, self._size, BLOCK):
            pixels[first : first + BLOCK] = self.read(range(first, min(first + BLOCK, self._size))).to(device)
        held = copy(self)
        held._held, held.device, held.in_memory = pixels, device, True
        return held

    def _store(self, memory: int, cache: int | None, progress: Progress | None) -> None:
        """Have the images decoded once, if they fit in memory or are worth a place on disk."""
        n = self._size
        small = n * self.channels * self.resolution**2 <= memory
        if cache is not None and self._source.encoded + n * A_FILE >= cache:
            self._stored = decoded(self._reader, progress)
        if self._stored is None and small:
            self._stored = self._in_memory(progress)
        if self._stored is None:
            return
        self.in_memory, kept = small, self._stored.kept
        if not len(kept):
            raise DataError(self._reader.all_failed())
        if len(kept) < n:
            replaced = kept[np.searchsorted(kept, np.arange(n)) % len(kept)]     # by the next readable one
            self._places = kept if small else replaced
            self._size = len(self._places)
            self.labels = None if self.labels is None else self.labels[self._places]

    def _in_memory(self, progress: Progress | None) -> InMemory:
        pixels = np.empty((self._size, self.channels, self.resolution, self.resolution), dtype=np.uint8)
        kept: list[int] = []
        for index, image in self._reader.everything(progress, threads=self._reader.workers):
            if image is not None:
                pixels[len(kept)] = image.transpose(2, 0, 1)
                kept.append(index)
        return InMemory(pixels[: len(kept)], np.array(kept, dtype=np.int64))

    def _take(self, stored: Stored, places: Places) -> Pixels:
        rows = places if self._places is None else np.searchsorted(stored.kept, places)
        pixels, damaged = stored.take(rows)
        if len(damaged):
            wanted = places[damaged]
            pixels[damaged] = self._decode(wanted)
            places[damaged] = wanted
        return pixels

    def _decode(self, places: Places) -> Pixels:
        """Decode these images now; `places` is changed where another one had to take the place."""
        pixels = np.empty((len(places), self.channels, self.resolution, self.resolution), dtype=np.uint8)
        for row, (index, image) in enumerate(self._reader.readables(places.tolist())):
            pixels[row], places[row] = image.transpose(2, 0, 1), index
        return pixels

    def _report(self) -> None:
        skipped = self.skipped
        if not skipped:
            return
        shown = "; ".join(f"{name} ({why})" for name, why in skipped[:3])
        more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        left = self._size if self._stored is None else len(self._stored.kept)
        log.warning("%s: %s: %s%s", self.name, f"{len(skipped)} files skipped, {left} images left", shown, more)


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device; 0 for the host, and for one that does not say."""
    asked = getattr(getattr(torch, device.type, None), "mem_get_info", None)       # of torch.cuda, torch.xpu
    return int(asked(device)[0]) if asked else 0


def normalise(images: Tensor) -> Tensor:
    """uint8 [N, C, H, W] -> float32 in [-1, 1]."""
    return images.to(torch.float32).div_(127.5).sub_(1.0)
