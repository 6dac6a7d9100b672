"""Copies in a set: exact ones by their pixels, near ones by a perceptual hash and a closer look.

The hash has one bit for each of the 64 lowest frequencies of a picture's brightness but the mean: whether its DCT
coefficient is clearly above 0. (Zauner, 2010, "Implementation and benchmarking of perceptual image hash functions",
asks whether it is above the median, which in a smooth picture is noise.) It finds candidates; a pair is near only if
its 16x16 views also agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

SIDE = 16       # pixels of a view
RADIUS = 6      # bits that may differ: with 7 bands, one of them is then equal
BANDS = 7
CLEAR = 0.15    # of the root mean square of a picture's coefficients
ALIKE = 0.98    # correlation of two near copies' views
APART = 24.0    # levels: their largest root-mean-square difference
# Measured on pairs of different files: of CIFAR-10's 60,000 (1.8 billion pairs) 67 are called near, and by eye all
# are one picture saved twice; of the bundled emoji's 1,636 (1.3 million pairs) 45 glyphs are near to another that is
# not equal, most of them the same but for a detail. At 0.97 pictures of different cars begin to join.
ROUNDS = 32         # different pictures with one hash that are told apart
WINDOW = 4096       # neighbours compared in one bucket
LOOKS = 20_000_000  # pairs looked at more closely, at most: less than a minute
CHUNK = 8192        # pairs of views compared at a time


@cache
def _cosines(side: int) -> NDArray[np.float32]:
    """The nine lowest rows of the orthonormal DCT-II of `side` points."""
    steps, places = np.arange(9)[:, None], np.arange(side)[None]
    rows = np.cos(np.pi * steps * (2 * places + 1) / (2 * side)) * np.sqrt(2 / side)
    return np.asarray(rows, dtype=np.float32)


def fingerprints(brightness: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return one perceptual hash for each picture [n, side, side]."""
    cosines = _cosines(brightness.shape[-1])
    waves = cosines @ brightness @ cosines.T  # [n, 9, 9]
    low = np.concatenate([waves[:, :8, :8].reshape(-1, 64)[:, 1:], waves[:, 8:, 0]], axis=1)
    bits = low > CLEAR * np.sqrt(np.square(low).mean(axis=1, keepdims=True))
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def shrink(views: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[n, side, side, 3] -> [n, SIDE, SIDE, 3], by the mean of each cell."""
    n, side = views.shape[:2]
    cells = views.reshape(n, SIDE, side // SIDE, SIDE, side // SIDE, 3)
    return np.asarray(cells.mean(axis=(2, 4), dtype=np.float32).round(), dtype=np.uint8)


def exact(digests: list[bytes]) -> Indices:
    """Return for each picture the index of the first one with the same pixels, [n]."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, index) for index, digest in enumerate(digests)], dtype=np.int64)


def near(views: NDArray[np.uint8], hashes: NDArray[np.uint64], candidates: Indices) -> Indices:
    """Return for each picture the smallest index of the pictures that it is near to, over several steps; [n].

    `candidates` are the ones to compare; every other one stays alone.
    """
    links = [np.stack([candidates, candidates])]
    leaders = []
    left = candidates
    for _ in range(ROUNDS):  # pictures with equal hashes: each is compared with a leader
        if not len(left):
            break
        _, first, inverse = np.unique(hashes[left], return_index=True, return_inverse=True)
        leader = left[first][inverse]
        same = alike(views, left, leader) | (left == leader)
        links.append(np.stack([left[same], leader[same]]))
        leaders.append(left[first])
        left = left[~same]
    if leaders:
        chosen = np.sort(np.concatenate(leaders))
        links += [chosen[pairs] for pairs in _close(hashes[chosen], views[chosen])]
    return _joined(len(hashes), np.concatenate(links, axis=1))


def _close(hashes: NDArray[np.uint64], views: NDArray[np.uint8]) -> Iterator[Indices]:
    """Yield [2, m] pairs that are near, by multi-index hashing: within RADIUS bits, one of the BANDS is equal.

    (Norouzi et al., 2012, "Fast search in Hamming space with multi-index hashing".)
    """
    edges = np.linspace(0, 64, BANDS + 1).round().astype(int)
    masks = [np.uint64((1 << int(end)) - (1 << int(start))) for start, end in pairwise(edges)]
    looked = 0
    for number, mask in enumerate(masks):
        keys = hashes & mask
        order = np.lexsort((hashes, keys))  # neighbours in a bucket then share their upper bits too
        keys, sorted_hashes = keys[order], hashes[order]
        here = np.arange(len(order))
        for step in range(1, min(len(order), WINDOW)):
            here = here[: np.searchsorted(here, len(order) - step)]
            here = here[keys[here] == keys[here + step]]
            if not len(here):
                break
            differing = sorted_hashes[here] ^ sorted_hashes[here + step]
            close = np.bitwise_count(differing) <= RADIUS
            for earlier in masks[:number]:  # met there already
                close &= (differing & earlier) != 0
            pair = np.stack([order[here[close]], order[here[close] + step]])
            looked += pair.shape[1]
            if looked > LOOKS:                       # a set made of one outline: the nearest have been compared
                return
            yield pair[:, alike(views, *pair)]


def alike(views: NDArray[np.uint8], these: Indices, those: Indices) -> NDArray[np.bool_]:
    """Return whether pictures agree but for compression, size, brightness and contrast, [m]."""
    found = np.zeros(len(these), dtype=bool)
    for start in range(0, len(these), CHUNK):
        part = slice(start, start + CHUNK)
        a, b = (views[each[part]].reshape(-1, SIDE * SIDE * 3).astype(np.float32) for each in (these, those))
        difference = np.sqrt(np.square(a - b).mean(axis=1))
        a -= a.mean(axis=1, keepdims=True)
        b -= b.mean(axis=1, keepdims=True)
        scale = np.sqrt(np.square(a).sum(axis=1) * np.square(b).sum(axis=1))
        found[part] = ((a * b).sum(axis=1) >= ALIKE * scale) & (difference <= APART) & (scale > 0)
    return found


def _joined(n: int, links: Indices) -> Indices:
    """Return the smallest index of each connected component of a graph with edges [2, m]."""
    root = np.arange(n)
    while True:
        lower = np.minimum(root[links[0]], root[links[1]])
        joined = root.copy()
        np.minimum.at(joined, root[links[0]], lower)
        np.minimum.at(joined, root[links[1]], lower)
        joined = joined[joined]
        if np.array_equal(joined, root):
            return root
        root = joined


def groups(roots: Indices) -> list[Indices]:
    """Return the groups of at least two pictures with the same root, each in order."""
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
    return [group for group in np.split(order, starts[1:]) if len(group) > 1]
