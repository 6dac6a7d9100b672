"""Which image stands where in the endless sequence of epochs: a function of the seed and the place, whoever asks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from zoo.noise import key

Places = NDArray[np.int64]
LANES = 8          # groups that are shown side by side; part of what a seed means, so a constant


class Order:
    """A permutation of all images for each epoch, drawn by a key of (seed, epoch)."""

    def __init__(self, n: int, seed: int):
        self._n, self._seed = n, seed
        self._permutation = lru_cache(maxsize=4)(self._permute)

    def at(self, positions: Places) -> Places:
        """Return the images at these positions of the endless sequence."""
        epochs, places = np.divmod(positions, self._n)
        for epoch in np.unique(epochs):                      # several when the set is smaller than the batch
            mine = epochs == epoch
            places[mine] = self._permutation(int(epoch))[places[mine]]
        return places

    def _permute(self, epoch: int) -> Places:
        return permutation(self._n, self._seed, "order", epoch)


class GroupedOrder:
    """An order for images that are only fetched in groups, such as the row groups of a file on the network.

    Each epoch draws an order of the groups and an order within each, and cuts the long row that they make into LANES
    equal pieces, which it deals out in turn. So LANES groups are in use at a time, a batch mixes all of them, every
    image is shown once an epoch, and any place is found without what stands before it. Processes whose number divides
    LANES take different lanes, so that each fetches its own groups.
    """

    def __init__(self, groups: Places, seed: int):
        self._sizes, self._seed, self._n = groups, seed, int(groups.sum())
        self._first = np.cumsum(groups) - groups             # image with which each group begins
        self._epoch = lru_cache(maxsize=4)(self._shuffle)
        self._within = lru_cache(maxsize=4 * LANES)(self._permute)

    def at(self, positions: Places) -> Places:
        """Return the images at these positions of the endless sequence."""
        epochs, places = np.divmod(positions, self._n)
        return np.array([self._image(int(epoch), int(place)) for epoch, place in zip(epochs, places)], dtype=np.int64)

    def _image(self, epoch: int, place: int) -> int:
        order, ends = self._epoch(epoch)
        row = self._row(place)
        turn = int(np.searchsorted(ends, row, side="right"))
        group = int(order[turn])
        offset = row - (int(ends[turn]) - int(self._sizes[group]))
        return int(self._first[group]) + int(self._within(epoch, group)[offset])

    def _row(self, place: int) -> int:
        length = self._n // LANES                            # of a lane; what remains comes last, in one piece
        return place if place >= length * LANES else place % LANES * length + place // LANES

    def _shuffle(self, epoch: int) -> tuple[Places, Places]:
        """Return the groups in their order, and where each of them ends in the long row."""
        order = permutation(len(self._sizes), self._seed, "groups", epoch)
        return order, np.cumsum(self._sizes[order])

    def _permute(self, epoch: int, group: int) -> Places:
        return permutation(int(self._sizes[group]), self._seed, "rows", epoch, group)


def permutation(n: int, *parts: int | str) -> Places:
    """Return a permutation of 0 to n - 1 that depends on nothing but the parts of its key."""
    # Sorting raw Philox numbers, not Generator.permutation: only the raw stream is promised to stay as it is.
    return np.argsort(np.random.Philox(key=key(*parts)).random_raw(n), kind="stable")


def mirrored(positions: slice, seed: int) -> NDArray[np.bool_]:
    """Return which of the positions start to stop are flipped left to right: half of them, by a key of each."""
    first = positions.start                                  # Philox makes four numbers a count: number p is fixed by p
    stream = np.random.Philox(key=key(seed, "mirror"), counter=first // 4)
    numbers = stream.random_raw(first % 4 + positions.stop - first)[first % 4 :]
    return np.asarray(numbers >> np.uint64(63) == 1)
