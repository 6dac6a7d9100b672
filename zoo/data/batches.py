"""Endless keyed batches: which image stands at which place is a function of (seed, step), whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.images import ImageSet
from zoo.data.order import GroupedOrder, Order, Places, mirrored
from zoo.errors import ConfigError

Rows = tuple[Tensor, Tensor | None]
AHEAD = 16               # steps whose images a source on the network hears of in advance


def batches(
    images: ImageSet,
    *,
    batch: int,              # images a step, over all shares
    seed: int,
    start: int = 0,          # first step
    share: int = 0,          # this process
    shares: int = 1,         # processes
    mirror: bool = False,    # flip half of the images left to right
    device: torch.device | str = "cpu",      # where the batches shall lie
) -> Iterator[Rows]:
    """Yield images uint8 [N, C, H, W] and labels int64 [N] or None, N = batch / shares, for steps start, start + 1, ...

    The image at place i of step s has the position p = s * batch + i in the endless sequence of epochs; epoch p // n is
    permuted by a key of (seed, epoch) and mirroring is drawn by a key of (seed, p), so a resumed run goes on with the
    very next image. A share takes rows share::shares of the batch. On a GPU the set is held there if it takes little
    of its memory (`ImageSet.to`), and copied from pinned memory while the GPU works if not. Raises ConfigError for an
    impossible division.
    """
    if batch < 1 or shares < 1 or batch % shares:
        raise ConfigError(f"batch {batch} cannot be divided among {shares} processes; choose a multiple of {shares}.")
    if not 0 <= share < shares or start < 0:
        raise ConfigError(f"share {share} of {shares} from step {start} does not exist; shares and steps count from 0.")
    device = torch.device(device)
    if device.type != "cpu":
        images = images.to(device)
    part = Part(images, batch, seed, slice(share, None, shares), mirror, pinned=device.type == "cuda")
    rows = _ready(part, start) if images.in_memory and images.device == device else _prefetched(part, start)
    return (_moved(each, device) for each in rows)


class Part:
    """What a share sees: the images of its rows of each step."""

    def __init__(self, images: ImageSet, batch: int, seed: int, rows: slice, mirror: bool, *, pinned: bool):
        self.images, self._batch, self._seed, self._rows, self._mirror = images, batch, seed, rows, mirror
        self._pinned = pinned and images.device.type == "cpu"
        self._order = Order(len(images), seed) if images.groups is None else GroupedOrder(images.groups, seed)

    def indices(self, step: int) -> Places:
        positions = np.arange(step * self._batch, (step + 1) * self._batch, dtype=np.int64)
        return self._order.at(positions[self._rows])

    def mirrored(self, step: int) -> NDArray[np.bool_]:
        return mirrored(slice(step * self._batch, (step + 1) * self._batch), self._seed)[self._rows]

    def fetch(self, step: int) -> Rows:
        pixels, labels = self.images.rows(self.indices(step))
        if self._mirror:
            flip = torch.from_numpy(self.mirrored(step)).to(pixels.device)
            pixels = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
        if self._pinned:
            pixels, labels = pixels.pin_memory(), None if labels is None else labels.pin_memory()
        return pixels, labels


def _ready(part: Part, step: int) -> Iterator[Rows]:
    while True:
        yield part.fetch(step)
        step += 1


def _prefetched(part: Part, step: int) -> Iterator[Rows]:
    ahead = ThreadPoolExecutor(1, thread_name_prefix="zoo-prefetch")
    remote = part.images.groups is not None

    def fetch(step: int) -> Rows:
        if remote:
            part.images.expect(part.indices(step + AHEAD))
        return part.fetch(step)

    try:
        coming = ahead.submit(fetch, step)
        while True:
            step += 1
            rows, coming = coming.result(), ahead.submit(fetch, step)
            yield rows
    finally:
        # Files are read to the end of the batch, so that a closed stream touches no folder; nobody waits for a network.
        ahead.shutdown(wait=not remote, cancel_futures=True)


def _moved(rows: Rows, device: torch.device) -> Rows:
    pixels, labels = rows
    # From pinned memory the copy runs beside the GPU's work; torch keeps the pinned block until it has ended.
    pixels = pixels.to(device, non_blocking=True)
    return pixels, None if labels is None else labels.to(device, non_blocking=True)
