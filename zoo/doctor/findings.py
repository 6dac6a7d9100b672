"""What one can find in a set: what is there, what to do, and whether it would stop or spoil a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.doctor.look import Look, Survey
from zoo.doctor.words import counted, share, some

FEWEST = 50         # images; a model of fewer can only repeat them
MANY = 0.05         # a fault in more than this share of the images spoils a training
STRETCH = 1.15      # an image is enlarged noticeably above this factor
LONG = 3.0          # longer side / shorter side, from where the centre square loses most of a picture
NEARLY_EMPTY = 10   # images of a class
IMBALANCE = 20      # a class that has this many times less than the median one is out of balance
NEARLY_ALL = 0.99   # share of grey images that makes a grey set


@dataclass(frozen=True)
class Finding:
    """One thing that was found. `problem`: it would stop or spoil a training."""

    kind: str                       # a word to know it by, as in docs/data.md
    problem: bool
    what: str                       # what is there
    advice: str                     # what to do
    images: tuple[str, ...] = ()    # the names it is about

    def __str__(self) -> str:
        return f"{self.what}. {self.advice}"


@dataclass(frozen=True)
class Sign:
    """A finding about all images for which something holds."""

    kind: str
    holds: Callable[[Look], bool]
    what: str
    advice: str


PASSING = (              # what images go through on their way into a training: harmless, and worth knowing
    Sign("long", lambda each: each.aspect > LONG, "more than three times longer one way than the other",
         "Training sees the centre square alone: cut them yourself if the rest matters."),
    Sign("turned", lambda each: each.turned, "turned by an EXIF orientation",
         "Training sees them upright; check on the sheet that they are."),
    Sign("moving", lambda each: each.moving, "animated or of several pages",
         "Training sees the first frame: save others as images of their own if they matter."),
    Sign("deep", lambda each: each.colours.startswith("16-bit"), "stored with 16 bits a channel",
         "Training scales them to 8 bits; check on the sheet that they are not too dark."),
    Sign("cmyk", lambda each: each.colours == "CMYK", "stored in CMYK, the colours of print",
         "They are converted without a colour profile: convert them yourself if they look wrong on the sheet."),
    Sign("alpha", lambda each: each.alpha, "transparent in parts",
         "It is laid over white: keep that, or train with --set channels=4 to learn it too."),
)  # fmt: skip


def of_images(seen: Survey, resolution: int) -> Iterator[Finding]:
    """Yield what is found by looking at each image by itself, to be trained on at a resolution."""
    total = len(seen) + len(seen.failed)
    if seen.failed:
        shown = some(f"{name} ({why})" for name, why in seen.failed)
        what = f"{len(seen.failed):,} of {counted(total, 'file')} cannot be read: {shown}"
        names = tuple(name for name, _ in seen.failed)
        yield Finding("broken", many(len(names), total), what, "Training skips them: repair or remove them.", names)
    if len(seen) < FEWEST:
        what = f"only {counted(len(seen), 'image')} can be trained on"
        yield Finding("few", True, what, f"A model of so few can only repeat them: bring {FEWEST} or more.")
    if not len(seen):
        return
    small = Sign(
        "small",
        lambda each: each.side * STRETCH < resolution,
        f"smaller than {resolution}x{resolution}",
        "Enlarging teaches a model blur: remove them, or train at a lower resolution.",
    )
    yield from _about(seen, small, spoils=True)
    flat = [name for name, plain in zip(seen.names, seen.flat) if plain]
    yield from _told(seen, flat, "flat", "of a single colour", "There is nothing to learn in them: remove them.", True)
    for sign in PASSING:
        yield from _about(seen, sign, spoils=False)
    yield from _grey(seen)


def _grey(seen: Survey) -> Iterator[Finding]:
    if seen.grey.mean() < NEARLY_ALL:
        return
    coloured = sum("grey" not in each.colours and each.colours != "1-bit" for each in seen.looks)
    stored = f", {coloured:,} of them stored in colour" if coloured else ""
    what = f"all images are grey{stored}" if seen.grey.all() else f"nearly all images are grey{stored}"
    yield Finding("grey", False, what, "Train with --set channels=1: less to learn, and no stray colours.")


def of_classes(seen: Survey) -> Iterator[Finding]:
    """Yield the classes that a model with classes could hardly learn."""
    if seen.labels is None:
        return
    counts = np.bincount(seen.labels, minlength=len(seen.classes))
    median = float(np.median(counts))
    empty = counts < NEARLY_EMPTY
    rare = ~empty & (counts * IMBALANCE < median)
    for kind, picked, why in (
        ("small class", empty, f"fewer than {NEARLY_EMPTY} images"),
        ("imbalance", rare, f"less than a twentieth of the median class, which has {counted(round(median), 'image')}"),
    ):
        names = tuple(f"{seen.classes[index]} ({counts[index]:,})" for index in np.flatnonzero(picked))
        if names:
            what = f"{counted(len(names), 'class', 'classes')} of {len(counts):,} with {why}: {some(names)}"
            advice = "Add images, merge classes, or train a model without classes."
            yield Finding(kind, True, what, advice, names)


def _about(seen: Survey, sign: Sign, *, spoils: bool) -> Iterator[Finding]:
    names = [name for name, each in zip(seen.names, seen.looks) if sign.holds(each)]
    yield from _told(seen, names, sign.kind, sign.what, sign.advice, spoils)


def _told(seen: Survey, names: Sequence[str], kind: str, what: str, advice: str, spoils: bool) -> Iterator[Finding]:
    if names:
        line = f"{share(len(names), len(seen))} {what}: {some(names)}"
        yield Finding(kind, spoils and many(len(names), len(seen)), line, advice, tuple(names))


def many(count: int, total: int) -> bool:
    """Return whether so many of all images spoil a training."""
    return count > MANY * total
