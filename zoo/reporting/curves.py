"""The values of a log over kimg, those that belong together in one panel, thinned out where there are very many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.documents import mapping
from zoo.reporting.facts import number, short

Point = tuple[float, float | None]      # (kimg, value); None where that was not finite

POINTS = 500          # of one series
ALL_POINTS = 40_000   # of a page: what keeps it small
TOGETHER = 8          # series in one panel: as many colours can be told apart
MOST = 160            # series of a page
NO_VALUES = ("step", "kimg", "seconds", "skipped", "faults", "findings", "closing")      # of a log line
VARIETY = ("spread", "apart", "vendi", "recall", "coverage")
GRADIENTS, LOGITS = "Gradient norms", "Logits"
WATCHED = ("The watchdog: variety", "The watchdog: distance from the data", "The watchdog: logits")
RATE, SPEED = "Learning rate", "Speed, images a second"
LAST = (GRADIENTS, LOGITS, *WATCHED, RATE, SPEED)      # in this order after the terms of each phase


@dataclass(frozen=True)
class Series:
    """One value over kimg."""

    name: str
    points: tuple[Point, ...]      # kimg does not fall
    lost: int                      # values that were not finite


@dataclass(frozen=True)
class Panel:
    """Series that one chart shows."""

    title: str
    series: tuple[Series, ...]
    shares: bool      # whether its values are shares and ratios, which are read from zero


def panels(lines: Sequence[Mapping[str, Any]]) -> tuple[list[Panel], int]:
    """Return every value of a log's lines in panels, and how many series were left out as too many."""
    found: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    timed = [(kimg, line) for line in lines if (kimg := number(line.get("kimg"))) is not None]
    for kimg, line in sorted(timed, key=lambda each: each[0]):
        for group, name, value in _values(line):
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                found[group][name].append((kimg, number(value)))
    named = [(group, name) for group in _ordered(found) for name in sorted(found[group])]
    most = min(POINTS, ALL_POINTS // max(1, len(named[:MOST])))
    drawn: dict[str, list[Series]] = defaultdict(list)
    for group, name in named[:MOST]:
        points = found[group][name]
        lost = sum(value is None for _, value in points)
        drawn[group].append(Series(short(name, 60), tuple(thinned(points, most)), lost))
    return [panel for group, members in drawn.items() for panel in _panels(group, members)], len(named[MOST:])


def _panels(group: str, members: Sequence[Series]) -> Iterator[Panel]:
    parts = [tuple(members[i : i + TOGETHER]) for i in range(0, len(members), TOGETHER)]
    for i, part in enumerate(parts, 1):
        title = short(group, 60) + (f" ({i} of {len(parts)})" if len(parts) > 1 else "")
        yield Panel(title, part, group in (*WATCHED, "augment"))


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """Return about `most` points: of each stretch the lowest and the highest, so that no peak is lost, and one gap."""
    if len(points) <= most:
        return list(points)
    kept, stretches = {0, len(points) - 1}, max(1, most // 3)
    for i in range(stretches):
        places = range(i * len(points) // stretches, (i + 1) * len(points) // stretches)
        finite = {place: value for place in places if (value := points[place][1]) is not None}
        kept |= {min(finite, key=finite.__getitem__), max(finite, key=finite.__getitem__)} if finite else set()
        kept |= set([place for place in places if place not in finite][:1])
    return [points[place] for place in sorted(kept)]


def _values(line: Mapping[str, Any]) -> Iterator[tuple[str, str, object]]:
    """Yield (panel, name, value) of all that a log line holds."""
    for name, value in mapping(line.get("terms")).items():
        phase, _, term = name.partition(".")
        if term == "gradient_norm":
            yield GRADIENTS, phase, value
        elif term.startswith(("logit", "sign_")):
            yield LOGITS, name, value
        else:
            yield phase, term or name, value
    for name, value in mapping(line.get("watchdog")).items():
        yield WATCHED[0 if name in VARIETY else 2 if name.startswith("logit") else 1], name, value
    for name, value in line.items():
        if name in ("lr", "images_per_second"):
            yield (RATE if name == "lr" else SPEED), name, value
        elif isinstance(value, Mapping) and name not in ("terms", "watchdog"):
            yield from ((name, inner, each) for inner, each in value.items())
        elif name not in NO_VALUES:
            yield "More", name, value


def _ordered(groups: Mapping[str, object]) -> list[str]:
    return [*(group for group in groups if group not in LAST), *(group for group in LAST if group in groups)]

