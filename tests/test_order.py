"""The order of images that are fetched in groups: each once an epoch, found from any step, disjoint over processes."""

import numpy as np
import pytest

from zoo.data.order import LANES, GroupedOrder

SIZES = {
    "like a data set": [100] * 37 + [64] * 3 + [7],
    "one group": [50],
    "one row": [1],
    "fewer rows than lanes": [2, 1, 2],
    "groups of one": [1] * 100,
    "an empty group": [10, 0, 30],
}


def order(sizes, seed=3):
    return GroupedOrder(np.array(sizes, dtype=np.int64), seed)


def drawn(order, start, stop):
    return order.at(np.arange(start, stop, dtype=np.int64)).tolist()


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_epoch_shows_every_image_once_in_its_own_order(sizes):
    n = sum(sizes)
    epochs = [drawn(order(sizes), first, first + n) for first in (0, n, 2 * n)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(n))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == (3 if n > 5 else len({tuple(epoch) for epoch in epochs}))


def test_any_place_is_found_without_those_before_it():
    sizes = SIZES["like a data set"]
    n = sum(sizes)
    whole = drawn(order(sizes), 0, 3 * n)
    for first in (1, n - 1, n, n + 1, 2 * n + 777):
        assert drawn(order(sizes), first, first + 40) == whole[first : first + 40]
    assert drawn(order(sizes, seed=4), 0, n) != whole[:n]


def test_order_is_fixed_for_ever():
    """Runs of an older version go on with the same images: these numbers may not change."""
    assert drawn(order([5, 5, 5, 5]), 0, 20) == [1, 3, 4, 7, 8, 14, 11, 12, 2, 0, 9, 5, 6, 13, 10, 16, 15, 17, 18, 19]


def groups_of(rows, sizes):
    return set(np.searchsorted(np.cumsum(sizes), rows, side="right").tolist())


@pytest.mark.parametrize("shares", [2, 4, 8])
def test_processes_fetch_different_groups(shares):
    """An epoch of 800 groups: only those at the ends of a lane are fetched by two processes."""
    sizes, batch = [20] * 800, 16
    n = sum(sizes)
    whole = np.array(drawn(order(sizes), 0, n)).reshape(-1, batch)
    fetched = [groups_of(whole[:, share::shares].ravel(), sizes) for share in range(shares)]
    assert sum(map(len, fetched)) <= 800 + LANES
    assert set.union(*fetched) == set(range(800))


def test_few_groups_are_in_use_at_a_time():
    sizes = [100] * 400
    for first in (0, 5000, 12_345, 39_000):
        rows = drawn(order(sizes), first, first + 64)
        assert len(groups_of(rows, sizes)) <= 2 * LANES
        assert len({row // 100 for row in rows}) >= LANES // 2
