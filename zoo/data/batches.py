"""Endless keyed batches: which image stands at which place is a function of (seed, step), whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.images import ImageSet
from zoo.errors import ConfigError
from zoo.noise import key

Rows = tuple[Tensor, Tensor | None]


def batches(
    images: ImageSet,
    *,
    batch: int,              # images a step, over all shares
    seed: int,
    start: int = 0,          # first step
    share: int = 0,          # this process
    shares: int = 1,         # processes
    mirror: bool = False,    # flip half of the images left to right
) -> Iterator[Rows]:
    """Yield images uint8 [N, C, H, W] and labels int64 [N] or None, N = batch / shares, for steps start, start + 1, ...

    The image at place i of step s has the position p = s * batch + i in the endless sequence of epochs; epoch p // n is
    permuted by a key of (seed, epoch) and mirroring is drawn by a key of (seed, p), so a resumed run goes on with the
    very next image. A share takes rows share::shares of the batch. Raises ConfigError for an impossible division.
    """
    if batch < 1 or shares < 1 or batch % shares:
        raise ConfigError(f"batch {batch} cannot be divided among {shares} processes; choose a multiple of {shares}.")
    if not 0 <= share < shares or start < 0:
        raise ConfigError(f"share {share} of {shares} from step {start} does not exist; shares and steps count from 0.")
    order = Order(len(images), batch, seed, share, shares, mirror)
    return _ready(images, order, start) if images.in_memory else _prefetched(images, order, start)


class Order:
    """Which images, and which of them mirrored, a share sees at a step."""

    def __init__(self, n: int, batch: int, seed: int, share: int, shares: int, mirror: bool):
        self._n, self._batch, self._seed = n, batch, seed
        self._rows, self._mirror = slice(share, None, shares), mirror
        self._permutation = lru_cache(maxsize=4)(self._permute)

    def indices(self, step: int) -> NDArray[np.int64]:
        epochs, places = np.divmod(self._positions(step)[self._rows], self._n)
        for epoch in np.unique(epochs):                      # several when the set is smaller than the batch
            mine = epochs == epoch
            places[mine] = self._permutation(int(epoch))[places[mine]]
        return places

    def mirrored(self, step: int) -> NDArray[np.bool_]:
        if not self._mirror:
            return np.zeros(len(range(self._batch)[self._rows]), dtype=bool)
        first = step * self._batch                           # Philox makes four numbers a count: number p is fixed by p
        stream = np.random.Philox(key=key(self._seed, "mirror"), counter=first // 4)
        numbers = stream.random_raw(first % 4 + self._batch)[first % 4 :]
        return np.asarray(numbers >> np.uint64(63) == 1)[self._rows]

    def _positions(self, step: int) -> NDArray[np.int64]:
        return np.arange(step * self._batch, (step + 1) * self._batch, dtype=np.int64)

    def _permute(self, epoch: int) -> NDArray[np.int64]:
        # Sorting raw Philox numbers, not Generator.permutation: only the raw stream is promised to stay as it is.
        numbers = np.random.Philox(key=key(self._seed, "order", epoch)).random_raw(self._n)
        return np.argsort(numbers, kind="stable")


def _fetch(images: ImageSet, order: Order, step: int) -> Rows:
    pixels, labels = images.rows(order.indices(step).tolist())
    flip = torch.from_numpy(order.mirrored(step))
    return torch.where(flip[:, None, None, None], pixels.flip(3), pixels) if flip.any() else pixels, labels


def _ready(images: ImageSet, order: Order, step: int) -> Iterator[Rows]:
    while True:
        yield _fetch(images, order, step)
        step += 1


def _prefetched(images: ImageSet, order: Order, step: int) -> Iterator[Rows]:
    ahead = ThreadPoolExecutor(1, thread_name_prefix="zoo-prefetch")
    try:
        coming = ahead.submit(_fetch, images, order, step)
        while True:
            step += 1
            rows, coming = coming.result(), ahead.submit(_fetch, images, order, step)
            yield rows
    finally:
        ahead.shutdown(wait=False, cancel_futures=True)
