"""A run directory: everything needed to repeat, resume, judge and publish one training."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import RunError

if TYPE_CHECKING:
    from zoo.model import Model

LARGEST = 1 << 53      # that anything is counted to: a larger number is none of ours


@dataclass(frozen=True)
class Run:
    """One training: its directory and what lies in it."""

    directory: Path

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that run.json says: settings, versions, data fingerprint, parent."""
        return _read_json(self.directory / "run.json")

    @property
    def log(self) -> list[dict[str, Any]]:
        """One dictionary for each tick."""
        return log_lines(self.directory / "log.jsonl")

    @property
    def faults(self) -> dict[str, int]:
        """How many turns were left out for values that are not finite, and how often the training went back."""
        lines = self.log
        went = sum(not fault.get("watchdog") for fault in _ways_back(lines))
        return {"skipped": sum(line.get("skipped", 0) for line in lines), "rolled_back": went}

    @property
    def watchdog(self) -> dict[str, dict[str, float]]:
        """What the watchdog saw: name -> {"since" kimg, "rolled_back" how often}; of several times the first."""
        lines = self.log
        found: dict[str, dict[str, float]] = {}
        for finding in (each for line in lines for each in line.get("findings", ())):
            name, since = finding.get("name"), finding.get("kimg")
            if isinstance(name, str) and isinstance(since, int | float):
                found.setdefault(name, {"since": since, "rolled_back": 0})
        for name in (str(fault["watchdog"]) for fault in _ways_back(lines) if fault.get("watchdog")):
            found.setdefault(name, {"rolled_back": 0})["rolled_back"] += 1
        return found

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json says and what happened since: all that a card tells of the training."""
        happened = {"faults": self.faults if any(self.faults.values()) else {}, "watchdog": self.watchdog}
        return {**self.settings, **{name: value for name, value in happened.items() if value}}

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The receipts of evaluation.json, or None before the first evaluation."""
        path = self.directory / "evaluation.json"
        return _read_json(path) if path.exists() else None

    @property
    def model(self) -> Model:
        """The trained model, read from RUN/model."""
        from zoo.loading import load

        return load(f"dir:{self.directory / 'model'}")

    @classmethod
    def open(cls, directory: str | Path) -> Run:
        """Return the run in a directory.

        Raises:
            RunError: the directory holds no run.
        """
        path = Path(directory)
        if not os.path.isfile(path / "run.json"):
            raise RunError(f"{path} is no run directory: it has no run.json; `zoo train` or `zoo finetune` make one.")
        return cls(path)


def log_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log.jsonl; half a line, as a killed run leaves one, and what is none are passed over."""
    found = []
    for text in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        with suppress(ValueError, TypeError, RecursionError):
            line = json.loads(text, parse_int=_whole)
            if text.endswith(b"\n") and isinstance(line, dict) and _is_line(line):
                found.append(line)
    return found


def _ways_back(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for line in lines for each in line.get("faults", []) if each.get("action") == "rolled back"]


def _is_line(line: dict[str, Any]) -> bool:
    numbers = (line.get("step"), line.get("kimg"), line.get("skipped", 0))
    inner = (line.get("terms"), *line.get("faults", ()), *line.get("findings", ()))
    counted = all(isinstance(each, int | float) and abs(each) < LARGEST for each in numbers)      # NaN is not
    return counted and all(isinstance(each, dict) for each in inner)


def _whole(digits: str) -> int | float:
    """Return an integer of JSON; one that is longer than any count as the nearest float, which may be infinity."""
    return int(digits) if len(digits) < 17 else float(digits)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise RunError(f"{path} is no regular file: restore it or start a new run.")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}): restore it or start a new run.") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} holds {type(found).__name__} instead of settings: restore it or start a new run.")
    return found
