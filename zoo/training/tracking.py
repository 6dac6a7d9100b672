"""What log.jsonl says, shown by Accelerate's trackers as well: one run of theirs for a training, however often resumed.

log.jsonl stays the record: a tracker that fails costs one warning line, and none changes the training.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any
from uuid import uuid4

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType

from zoo.errors import ConfigError, suggest
from zoo.storage import place
from zoo.training.tracker import Tracker

NOTE = "tracking.json"                  # in the run directory: tracker -> id of its run, furthest step it was given
EXTRA = ("tensorboard", "trackio")      # what genzoo[track] brings
LONGEST = 250                           # characters of a setting, such as the names of 1,000 classes


def check(names: Sequence[str]) -> None:
    """Refuse a tracker that Accelerate does not know, or that is not installed.

    Raises:
        ConfigError: naming it, and what to do.
    """
    possible = sorted(LOGGER_TYPE_TO_CLASS)
    missing = {str(kind) for kind in LoggerType} - {str(kind) for kind in get_available_trackers()}
    for name in names:
        if name not in possible:
            given = str(name)[:60]
            raise ConfigError(f"No tracker {given!r}.{suggest(given, possible)} Possible: {', '.join(possible)}.")
        if name in missing:
            package = "'genzoo[track]'" if name in EXTRA else name
            raise ConfigError(f"The tracker {name!r} is not installed: pip install {package}.")


class Trackers:
    """The trackers of one training, by name; without names, and in all processes but the first, nothing at all."""

    def __init__(
        self, names: Sequence[str], accelerator: Accelerator, out: Path, settings: Mapping[str, Any], *, step: int
    ):
        """Begin, or go on with the runs that an earlier part of the training noted.

        Args:
            names: as `check` lets them pass.
            out: the run directory, which is there.
            settings: what run.json says.
            step: where the training stands; it will come by later ones again.
        """
        self._path = out / NOTE
        self._note = _noted(self._path)
        self._hook = threading.excepthook
        asked = dict.fromkeys(names) if accelerator.is_main_process else {}
        known = set(self._note)
        self._all = [Tracker(name, out, self._note.setdefault(name, _new())) for name in asked]
        if self._all:
            threading.excepthook = partial(_unless_of, tuple(asked), self._hook)
            self._write()
        for each in self._all:
            stored = each.way.rewinds and each.name in known      # would show them once more
            each.begin(step, None if stored else dict(_flat("", settings)))

    def line(self, line: Mapping[str, Any]) -> None:
        """Show the numbers of a line of log.jsonl."""
        step = int(line["step"])
        self._reach(step)
        for each in self._all:
            each.values(numbers(line), step)

    def picture(self, path: Path, step: int) -> None:
        """Show a sample grid that was just written."""
        self._reach(step)
        for each in self._all:
            each.picture(path, step)

    def go_back(self, step: int) -> None:
        """Take up an earlier step in the middle of a training; what a tracker cannot take back stays as it is."""
        for each in self._all:
            if each.way.rewinds:
                each.finish()
            each.begin(step)

    def finish(self) -> None:
        """Wait until all is written or sent; nothing can be shown after that."""
        for each in self._all:
            each.finish()
        if self._all:
            threading.excepthook = self._hook
        self._all = []

    def _reach(self, step: int) -> None:
        # Noted before it is shown: a process killed in between loses one point, where it would else show it twice.
        ahead = [each.held for each in self._all if each.lasts and step > each.held["step"]]
        for held in ahead:
            held["step"] = step
        if ahead:
            self._write()

    def _write(self) -> None:
        with suppress(OSError):      # of a full disk the log tells
            place((json.dumps(self._note) + "\n").encode(), self._path)


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Return what can be drawn of a line of log.jsonl: its finite numbers, a term as ``generator/adversarial``."""
    rest = {name: value for name, value in line.items() if name not in ("step", "terms", "faults", "findings")}
    terms = {name.replace(".", "/"): value for name, value in line.get("terms", {}).items()}
    return {
        name: value
        for name, value in _flat("", {**rest, **terms})
        if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    }


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, bool | int | float | str]]:
    """Yield the scalars of nested settings as ("recipe/lr", 0.001); a list of scalars is one text, None nothing."""
    if isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}/{name}" if prefix else str(name), inner)
    elif isinstance(value, list | tuple):
        yield prefix, json.dumps(value, default=str)[:LONGEST]
    elif value is not None:
        yield prefix, value if isinstance(value, bool | int | float) else str(value)[:LONGEST]


def _new() -> dict[str, Any]:
    return {"id": uuid4().hex, "step": -1}


def _noted(path: Path) -> dict[str, dict[str, Any]]:
    """Return the note of the run directory; where it is missing or damaged, nothing, so that other runs are begun."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): {"id": str(held["id"]), "step": int(held["step"])} for name, held in note.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


def _unless_of(names: Sequence[str], otherwise: Callable[[Any], object], ended: Any) -> None:
    """Tell of an exception that ended a thread, unless the thread is a tracker's: its failure is told in one line."""
    if type(ended.thread).__module__.split(".")[0] not in names:
        otherwise(ended)
