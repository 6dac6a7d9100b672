"""Images that stand in a set more than once, under two classes, or on both sides of a split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zoo.doctor import copies
from zoo.doctor.copies import Indices
from zoo.doctor.findings import Finding, many
from zoo.doctor.look import Survey
from zoo.doctor.words import counted, share, some

SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "holdout")


@dataclass(frozen=True)
class Repeats:
    """Which pictures are the same: equal numbers in `exact` have equal pixels, in `near` look alike (or are equal)."""

    names: tuple[str, ...]
    exact: Indices  # [n]
    near: Indices   # [n]

    def first(self, n: int) -> Repeats:
        """Return what is known about the first n images alone."""
        return Repeats(self.names[:n], self.exact[:n], self.near[:n])

    def pairs(self, sides: Indices | None = None, *, near: bool) -> list[tuple[int, int]]:
        """Return (first of a group, another of it) for all that repeat; with `near`, one for each different picture.

        With `sides` [n], only those on another side than the first; with `near` as well, only those without an equal
        one on another side.
        """
        leaking = np.zeros(len(self.exact), dtype=bool) if sides is None else _spanning(self.exact, sides)
        found: list[tuple[int, int]] = []
        for group in copies.groups(self.near if near else self.exact):
            if sides is not None:
                others = group[(sides[group] != sides[group[0]]) & ~(near & leaking[group])]
            elif near:
                _, places = np.unique(self.exact[group], return_index=True)
                others = group[np.sort(places)[1:]]
            else:
                others = group[1:]
            found += [(int(group[0]), index) for index in others.tolist()]
        return found


def _spanning(roots: Indices, sides: Indices) -> NDArray[np.bool_]:
    """Return for each image whether its group has members on several sides, [n]."""
    _, group = np.unique(roots, return_inverse=True)
    lowest, highest = sides.copy(), sides.copy()
    lowest[: group.max() + 1], highest[: group.max() + 1] = sides.max(), sides.min()
    np.minimum.at(lowest, group, sides)
    np.maximum.at(highest, group, sides)
    return np.asarray(lowest[group] != highest[group])


def repeats(*surveys: Survey) -> Repeats:
    """Compare all images of some sets, one set after another."""
    names = tuple(name for seen in surveys for name in seen.names)
    exact = copies.exact([each.digest for seen in surveys for each in seen.looks])
    flat = np.concatenate([seen.flat for seen in surveys])
    candidates = np.flatnonzero((exact == np.arange(len(exact))) & ~flat)
    near = copies.near(
        np.concatenate([seen.views for seen in surveys]), np.concatenate([seen.hashes for seen in surveys]), candidates
    )
    return Repeats(names, exact, near[exact])


def within(seen: Survey, same: Repeats) -> Iterator[Finding]:
    """Yield the images of one set that repeat others of it."""
    for near, kind, what, advice in (
        (False, "copies", "identical to another", "Keep one of each, or they are shown more often than the rest."),
        (True, "near copies", "nearly identical to another",
         "Look at them on the sheet (--sheet FILE.png), and keep one where it is the same picture."),
    ):  # fmt: skip
        pairs = same.pairs(near=near)
        if pairs:
            told = f"{share(len(pairs), len(seen))} {what}: {_shown(same, pairs, near)}"
            yield Finding(kind, many(len(pairs), len(seen)), told, advice, _listed(same, pairs, near))


def of_classes(seen: Survey, same: Repeats) -> Iterator[Finding]:
    """Yield the images that stand under two classes, and classes that hold one picture many times."""
    labels = seen.labels
    if labels is None:
        return
    pairs = same.pairs(labels, near=False)
    if pairs:
        told = f"{share(len(pairs), len(seen))} under two classes: {_shown(same, pairs, False)}"
        advice = "Keep each under the class that it belongs to."
        yield Finding("two classes", many(len(pairs), len(seen)), told, advice, _listed(same, pairs, False))
    hollow = []
    for label, name in enumerate(seen.classes):
        pictures = same.near[labels == label]
        if len(pictures) > 1 and len(set(pictures.tolist())) == 1:
            hollow.append(f"{name} ({len(pictures):,})")
    if hollow:
        told = f"{counted(len(hollow), 'class', 'classes')} with only copies of one picture: {some(hollow)}"
        advice = "Add images, merge classes, or train a model without classes."
        yield Finding("copied class", True, told, advice, tuple(hollow))


def splits(seen: Survey) -> list[str]:
    """Return the folders that are parts of one set, such as train and test, the one to train on first."""
    known = {folder for folder in map(_split, seen.names) if folder}
    return sorted(known, key=lambda name: SPLITS.index(name.lower())) if len(known) > 1 else []


def between(seen: Survey, same: Repeats, folders: list[str]) -> Iterator[Finding]:
    """Yield what is wrong with such folders: all of them would be trained on, and what stands in several."""
    what = f"the folders {', '.join(folders)} are parts of one set, and all of them would be trained on"
    advice = f"Give the folder {folders[0]} as DATA, and keep the others to measure with."
    yield Finding("split folders", True, what, advice)
    sides = np.array([folders.index(folder) if folder else -1 for folder in map(_split, seen.names)])
    inside = np.flatnonzero(sides >= 0)
    part = Repeats(tuple(same.names[index] for index in inside), same.exact[inside], same.near[inside])
    smaller = int(min(np.bincount(sides[inside])))
    yield from _leaks(part, sides[inside], smaller, f"in several of {', '.join(folders)}")


def against(seen: Survey, other: Survey, same: Repeats) -> Iterator[Finding]:
    """Yield the images that stand in two sets; `same` is about both."""
    sides = np.repeat([0, 1], [len(seen), len(other)])
    yield from _leaks(same, sides, min(len(seen), len(other)), f"both in {seen.name} and in {other.name}")


def _leaks(same: Repeats, sides: Indices, smaller: int, where: str) -> Iterator[Finding]:
    for near, kind, what in ((False, "leak", ""), (True, "near leak", ", nearly the same,")):
        pairs = same.pairs(sides, near=near)
        if pairs:
            stand = "image stands" if len(pairs) == 1 else "images stand"
            told = f"{len(pairs):,} {stand}{what} {where}: {_shown(same, pairs, near)}"
            advice = "Keep each in one of them, or what is measured there rewards learning by heart."
            yield Finding(kind, not near or many(len(pairs), smaller), told, advice, _listed(same, pairs, near))


def _split(name: str) -> str:
    return next((folder for folder in name.split("/")[:-1] if folder.lower() in SPLITS), "")


def _listed(same: Repeats, pairs: list[tuple[int, int]], near: bool) -> tuple[str, ...]:
    sign = "~" if near else "="
    return tuple(f"{same.names[one]} {sign} {same.names[another]}" for one, another in pairs)


def _shown(same: Repeats, pairs: list[tuple[int, int]], near: bool) -> str:
    return some(_listed(same, pairs, near))
