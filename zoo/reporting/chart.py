"""A chart as numbers for an SVG: where each line, tick and finding lies, in a box that a page scales as it likes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, isfinite, log10
from statistics import median

from zoo.explanation import Diagnosed
from zoo.reporting.curves import Panel, Series
from zoo.reporting.facts import short

WIDTH, HEIGHT = 440, 230                            # of the box
LEFT, RIGHT, TOP, BOTTOM = 50, 430, 18, 206         # edges of the plot in it
FAR = 20.0              # the largest value over the middle one of a series, from which on logarithms are drawn
LARGEST = 1e300         # larger ones are drawn there: the height of a plot must be a number
BANDS = 40              # findings that are marked


@dataclass(frozen=True)
class Line:
    """One series: what is drawn, and what is told where the pointer is."""

    name: str
    path: str                # of an SVG; empty where no two values in a row are finite
    dots: tuple[tuple[float, float], ...]      # values with none beside them
    kimg: tuple[str, ...]
    values: tuple[str, ...]
    last: str
    lost: int


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Band:
    """What the watchdog found, from when to when."""

    name: str
    at: float
    width: float
    row: int


@dataclass(frozen=True)
class Chart:
    """One panel, drawn."""

    title: str
    logarithmic: bool
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    bands: tuple[Band, ...]
    first: float             # kimg at the left edge
    last: float              # and at the right one

    @property
    def lost(self) -> int:
        """How many values were not finite."""
        return sum(line.lost for line in self.lines)


def drawn(panel: Panel, found: Sequence[Diagnosed], last: float) -> Chart:
    """Return the chart of a panel.

    Args:
        found: what went wrong, which is marked.
        last: kimg at the right edge.
    """
    points = [point for series in panel.series for point in series.points]
    first = min([0.0, *(kimg for kimg, _ in points)])
    last = max([last, *(kimg for kimg, _ in points)])
    across = _scale(first, last if last > first else first + 1.0, LEFT, RIGHT)
    values = [value for _, value in points if value is not None]
    far = not panel.shares and _far(panel.series)
    low, high = _range(values, far)
    up = _scale(low, high, BOTTOM, TOP)
    place: Callable[[float], float] = (lambda value: up(log10(value))) if far else up
    return Chart(
        panel.title,
        far,
        tuple(_line(series, across, place) for series in panel.series),
        tuple(Tick(across(at), f"{at:.4g}") for at in ticks(first, last, 5)),
        tuple(Tick(up(at), text) for at, text in (_powers(low, high) if far else _plain(low, high))),
        tuple(_bands(found, across, first, last)),
        first,
        last,
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return about so many round numbers from low to high."""
    span = high - low
    if not span > 0 or not isfinite(span):
        return [low]
    raw = span / about
    unit = 10.0 ** floor(log10(raw))
    step = min((each * unit for each in (1, 2, 5, 10)), key=lambda each: abs(each - raw))
    if not step > 0 or low + step == low:      # finer than numbers of this size are apart
        return [low]
    begin = floor(low / step)
    found = [(begin + i) * step for i in range(2 * about + 4)]
    slack = step * 1e-6      # a round number that lies at the edge, or at zero, is off by rounding
    return [0.0 if abs(at) < slack else at for at in found if low - slack <= at <= high + slack]


def _far(series: Sequence[Series]) -> bool:
    """Return whether all values are positive, and those of some series would lie flat on the ground beside others."""
    values = [[value for _, value in each.points if value is not None] for each in series]
    middles, highest = [median(each) for each in values if each], max((max(each) for each in values if each), default=0)
    return bool(middles) and min(min(each) for each in values if each) > 0 and highest / FAR > min(middles)


def _plain(low: float, high: float) -> list[tuple[float, str]]:
    return [(at, f"{at:.4g}") for at in ticks(low, high, 4)]


def _powers(low: float, high: float) -> list[tuple[float, str]]:
    """Return powers of ten between two exponents, with 2 and 5 times them where they are few."""
    whole = range(ceil(low), floor(high) + 1)
    parts = (1, 2, 5) if len(whole) < 3 else (1,)
    every = max(1, -(-len(whole) // 5))
    exponents = [each + log10(part) for each in range(floor(low), floor(high) + 1, every) for part in parts]
    return [(at, f"{10.0**at:.3g}") for at in exponents if low <= at <= high and abs(at) < 300]


def _range(values: Sequence[float], far: bool) -> tuple[float, float]:
    """Return the lowest and the highest of a plot, with a little room; of logarithms where values lie far apart."""
    heights = [log10(value) if far else max(-LARGEST, min(LARGEST, value)) for value in values] or [0.0]
    low, high = min(heights), max(heights)
    room = 0.06 * (high - low)
    if not room > 1e-12 * max(abs(low), abs(high)) or room < 1e-290:
        room = 0.1 * abs(low) or 1.0
    return low - room, high + room


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    def place(value: float) -> float:
        share = (max(-LARGEST, min(LARGEST, value)) - low) / (high - low)
        return round(start + max(0.0, min(1.0, share)) * (end - start), 1)

    return place


def _line(series: Series, across: Callable[[float], float], up: Callable[[float], float]) -> Line:
    parts: list[str] = []
    dots: list[tuple[float, float]] = []
    finite = [(kimg, value) for kimg, value in series.points if value is not None]
    stretches = groupby(series.points, key=lambda point: point[1] is not None)
    for stretch in [list(members) for is_finite, members in stretches if is_finite]:
        places = [(across(kimg), up(value)) for kimg, value in stretch if value is not None]
        if len(places) == 1:
            dots += places
        else:
            parts.append("M" + "L".join(f"{x:g} {y:g}" for x, y in places))
    last = series.points[-1][1] if series.points else None
    return Line(
        series.name,
        "".join(parts),
        tuple(dots),
        tuple(f"{kimg:.6g}" for kimg, _ in finite),
        tuple(f"{value:.6g}" for _, value in finite),
        "not finite" if last is None else f"{last:.4g}",
        series.lost,
    )


def _bands(
    found: Sequence[Diagnosed], across: Callable[[float], float], first: float, last: float
) -> list[Band]:
    bands: list[Band] = []
    for each in sorted(found, key=lambda each: each.since)[:BANDS]:
        begin = across(max(first, each.since))
        end = across(last if each.until is None else max(each.since, each.until))
        # Names stand below each other where the stretches do; more than a few would hide the lines.
        taken = {band.row for band in bands if band.at + 90 > begin}
        row = next(i for i in range(len(bands) + 1) if i not in taken)
        bands.append(Band(short(each.name, 40), begin, round(max(1.5, end - begin), 1), row))
    return bands
