"""What a page says of a run in words: from run.json and the log, which may be anybody's and hold anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from zoo.documents import mapping
from zoo.explanation import Explanation

LETTERS = 200         # of a value among others; the settings at the end of the page have more room
LONG = 2_000          # of a value there
ROWS = 1_000          # of a table there
COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:      # an integer beyond what a float holds
        return None
    return found if isfinite(found) else None


def short(value: object, most: int = LETTERS) -> str:
    """Return a value as one line of text that is not too long."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most:,} more letters)"


def looked(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the watchdog looked at a run."""
    return any(mapping(line.get("watchdog")) for line in lines)


def summary(settings: Mapping[str, Any], told: Explanation, lines: Sequence[Mapping[str, Any]]) -> str:
    """Return what a page begins with."""
    data = mapping(settings.get("data")).get("name")
    on = f" on {short(data)}" if data else ""
    parent = mapping(settings.get("parent")).get("name")
    begun = f", fine-tuned from {short(parent)}" if parent else ""
    found = sorted({each.name for each in told.found})
    verdict = f"found {', '.join(found)}" if found else "found nothing wrong" if looked(lines) else "has not looked"
    state = {"running": "being trained"}.get(told.state, told.state)
    name = short(settings.get("architecture", "A model"))
    return f"{name}{begun}{on}: {_shown(told)}, {state}. The watchdog {verdict}."


def overview(
    settings: Mapping[str, Any], told: Explanation, lines: Sequence[Mapping[str, Any]], log: Path
) -> list[tuple[str, str]]:
    """Return what is told at the top of a page, as (name, value); what is not known is left out."""
    seconds = number(lines[-1].get("seconds")) if lines else None
    speed = 1000 * told.kimg / seconds if seconds else None
    rows = {
        "Architecture": _architecture(settings),
        "Data": _data(settings),
        "Shown": _shown(told),
        "Begun from": _parent(settings),
        "Method": _method(settings),
        "Last written": _written(log),
        "Time": "" if seconds is None else duration(seconds),
        "Speed": "" if speed is None else f"{speed:.3g} images a second",
        "Findings": ", ".join(sorted({each.name for each in told.found})) or ("none" if looked(lines) else ""),
    }
    return [(name, value) for name, value in rows.items() if value]


def duration(seconds: float) -> str:
    """Return a time in the two largest units that it has."""
    whole = round(seconds)
    for size, large, small, part in ((86_400, "d", "h", 3_600), (3_600, "h", "min", 60), (60, "min", "s", 1)):
        if whole >= size:
            return f"{whole // size} {large} {whole % size // part} {small}"
    return f"{seconds:.3g} s"


def flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield a document's values as (dotted name, text), a list of plain values as one."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        for index, inner in enumerate(value):
            yield from flat(inner, f"{name}.{index}")
    else:
        plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        yield short(name), short(plain, LONG)


def table(value: object) -> list[tuple[str, str]]:
    """Return the rows of `flat`, up to `ROWS` of them."""
    rows = list(flat(value))
    return rows if len(rows) <= ROWS else [*rows[:ROWS], ("...", f"{len(rows) - ROWS:,} more")]


def settings_tables(settings: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return all that run.json says as (title, rows): what stands alone first, then each of its groups."""
    alone = {name: value for name, value in settings.items() if not isinstance(value, Mapping) or not value}
    groups = [(short(name), table(value)) for name, value in settings.items() if name not in alone]
    return [*([("run", table(alone))] if alone else []), *groups]


def _architecture(settings: Mapping[str, Any]) -> str:
    config = mapping(settings.get("config"))
    size, channels, classes = (number(config.get(name)) for name in ("resolution", "channels", "num_classes"))
    said = [short(settings.get("architecture", ""))]
    if size is not None:
        said.append(f"{size:g}x{size:g} {COLOURS.get(int(channels or 0), '')}".strip())
    if classes:
        said.append(f"{classes:g} classes")
    return ", ".join(each for each in said if each)


def _data(settings: Mapping[str, Any]) -> str:
    data = mapping(settings.get("data"))
    count, held = number(data.get("images")), number(settings.get("held_out"))
    said = [short(data["name"])] if data.get("name") else []
    said += [f"{count:,.0f} images"] if count is not None else []
    said += [f"{held:,.0f} of them held out"] if held else []
    return ", ".join(said)


def _shown(told: Explanation) -> str:
    return f"{told.kimg:g} of {told.of:g} kimg" if told.of is not None else f"{told.kimg:g} kimg"


def _parent(settings: Mapping[str, Any]) -> str:
    parent = mapping(settings.get("parent"))
    if not parent:
        return "random weights"
    commit = f" at {short(parent['commit'], 10)}" if parent.get("commit") else ""
    return f"{short(parent.get('name', 'weights without a name'))}{commit}"


def _method(settings: Mapping[str, Any]) -> str:
    method, reason = settings.get("method"), settings.get("method_reason")
    if not method:
        return ""
    return short(method) if not reason or reason == "asked for" else f"{short(method)}: {short(reason)}"


def _written(log: Path) -> str:
    try:
        return f"{datetime.fromtimestamp(log.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"
    except (OSError, OverflowError, ValueError):
        return ""
