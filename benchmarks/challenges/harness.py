"""Arms x seeds, each measured once and kept: what every challenge is carried out by.

A challenge is data: named arms, which are settings of plain types, and a function that measures one arm with one seed.
What is done is in NAME.json and is not done again, unless the arm's settings have changed since; so a challenge that is
killed, or stopped by `--minutes`, goes on where it was with the same command.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))      # a script's own folder is there already
from document import document, machine

from zoo.home import zoo_home
from zoo.storage import place

RESULTS = Path(__file__).resolve().parent.parent / "results"
Settings = Mapping[str, Any]
Measure = Callable[[Settings, int, Path], Mapping[str, Any]]      # (settings, seed, folder) -> named results


@dataclass(frozen=True)
class Challenge:
    """What is compared, and how one of them is measured.

    Args:
        name: of the results, NAME.json and NAME.png.
        arms: name -> settings, of types that JSON has.
        measure: (settings, seed, folder) -> results, numbers or other plain types; None where there is none. What it
            leaves in the folder (its name is ARM-SEED) is there when it is called again after a kill, and gone once the
            results are kept. Numbers that are not finite are kept as None.
        columns: the results that are numbers and shown in the table.
        seeds: how many, from 0, unless `--seeds` says otherwise.
        quick: settings that replace an arm's with `--quick`, for a run of seconds.
        plot: (runs, path of a png), called at the end with all that is known.
    """

    name: str
    arms: Mapping[str, Settings]
    measure: Measure
    columns: tuple[str, ...]
    seeds: int = 5
    quick: Settings | None = None
    plot: Callable[[Sequence[Mapping[str, Any]], Path], None] | None = None


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the options that every challenge has; one may add its own, of other names."""
    options = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    options.add_argument("--only", action="append", default=[], metavar="WORD",
                         help="arms whose name holds or matches it, with * and ?; may be given again")  # fmt: skip
    options.add_argument("--seeds", type=int, help="how many seeds, from 0")
    options.add_argument("--minutes", type=float, help="start no further arm after so long")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    options.add_argument("--work", type=Path, help="folder of what is half done; default: in zoo's cache")
    options.add_argument("--table", action="store_true", help="measure nothing: show what is known, and draw it anew")
    options.add_argument("--quick", action="store_true", help="a few steps of everything, kept in a folder that goes")
    return options


def carry_out(challenge: Challenge, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure what is not known yet, show a table of all, draw the plot, and return the runs of the arms asked for."""
    if not chosen.quick:
        return _carried_out(challenge, chosen, chosen.out, chosen.work or zoo_home() / "challenges")
    arms = {name: {**arm, **(challenge.quick or {})} for name, arm in challenge.arms.items()}
    short = Challenge(challenge.name, arms, challenge.measure, challenge.columns, 1, plot=challenge.plot)
    with tempfile.TemporaryDirectory() as folder:
        return _carried_out(short, chosen, Path(folder), Path(folder) / "work")


def _carried_out(challenge: Challenge, chosen: argparse.Namespace, out: Path, work: Path) -> list[dict[str, Any]]:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{challenge.name}.json"
    arms = selected(challenge.arms, chosen.only)
    # All arms have a seed before any has the next: whenever it stops, they can be compared.
    plan = [(name, seed) for seed in range(chosen.seeds or challenge.seeds) for name in arms]
    before, begun, left = machine(), time.monotonic(), 0
    for name, seed in plan:
        if find(known(path), name, seed, arms[name]) is not None:
            continue
        if chosen.table or (chosen.minutes is not None and time.monotonic() - begun > 60 * chosen.minutes):
            left += 1
            continue
        print(f"{name}, seed {seed} ...", end=" ", file=sys.stderr, flush=True)
        folder = _begun(work / challenge.name / f"{name}-{seed}", arms[name])
        run = _measured(challenge, name, seed, arms[name], folder)
        _keep(path, run, before, challenge.columns)
        shutil.rmtree(folder)
        print(f"{run['seconds']:.0f} s: {shown(run['results'], challenge.columns)}", file=sys.stderr)
    held = known(path)
    runs = [found for name, seed in plan if (found := find(held, name, seed, arms[name])) is not None]
    print(table(runs, challenge.columns))
    if runs and challenge.plot is not None:
        challenge.plot(held, path.with_suffix(".png"))
    if left:
        print(f"{left} of {len(plan)} are not measured yet; this goes on with them: {_command()}", file=sys.stderr)
    return runs


def selected(arms: Mapping[str, Settings], words: Sequence[str]) -> dict[str, Settings]:
    """Return the arms whose name holds one of the words or matches it as a pattern; all where no word is given.

    Raises:
        SystemExit: a word that no arm has.
    """
    for word in words:
        if not any(_matches(name, word) for name in arms):
            raise SystemExit(f"No arm named like {word!r}; there are: {', '.join(arms)}.")
    return {name: arm for name, arm in arms.items() if not words or any(_matches(name, word) for word in words)}


def _matches(name: str, word: str) -> bool:
    return word in name or fnmatchcase(name, word)


def known(path: Path) -> list[dict[str, Any]]:
    """Return the runs that a results file holds."""
    runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
    return runs


def find(runs: Sequence[dict[str, Any]], arm: str, seed: int, settings: Settings) -> dict[str, Any] | None:
    """Return the run of an arm and a seed, if it was made with just these settings."""
    plain = json.loads(json.dumps(settings))      # tuples are lists there
    return next((r for r in runs if (r["arm"], r["seed"], r["settings"]) == (arm, seed, plain)), None)


def _begun(folder: Path, settings: Settings) -> Path:
    """Return the folder of what is half done, empty unless that was begun with the same settings."""
    described, said = folder / "settings.json", json.dumps(settings, sort_keys=True)
    if folder.exists() and not (described.exists() and described.read_text() == said):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    place(said.encode(), described)
    return folder


def _measured(challenge: Challenge, name: str, seed: int, settings: Settings, folder: Path) -> dict[str, Any]:
    begun = time.monotonic()
    results = dict(challenge.measure(settings, seed, folder))
    seconds = round(time.monotonic() - begun, 1)
    return {"arm": name, "seed": seed, "settings": dict(settings), "seconds": seconds, "load": os.getloadavg()[0],
            "results": _finite(results)}  # fmt: skip


def _finite(value: Any) -> Any:
    """Return the same of plain types, with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _keep(path: Path, run: dict[str, Any], before: dict[str, Any], columns: tuple[str, ...]) -> None:
    """Add a run to the results file, whole or not at all; it takes the place of one of the same arm and seed."""
    with _alone(path.parent):
        others = [each for each in known(path) if (each["arm"], each["seed"]) != (run["arm"], run["seed"])]
        runs = [*others, run]
        whole = document(before, runs, summary(runs, columns))
        runs[-1] = {**run, "commit": whole["commit"]}
        place(_written(whole).encode(), path)


def _written(whole: Mapping[str, Any]) -> str:
    """Return a document with each of its runs on a line: they are many, and long."""
    head = json.dumps({**whole, "runs": []}, indent=1, allow_nan=False)
    lines = ",\n  ".join(json.dumps(run, allow_nan=False) for run in whole["runs"])
    return head.replace('"runs": []', f'"runs": [\n  {lines}\n ]', 1) + "\n"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes that measure for the same folder waiting meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def summary(runs: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """Return arm -> column -> {"mean", "least", "most"} over its seeds, and how many those are."""
    arms = list(dict.fromkeys(run["arm"] for run in runs))
    return {arm: _ranges([run["results"] for run in runs if run["arm"] == arm], columns) for arm in arms}


def _ranges(results: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"seeds": len(results)}
    for column in columns:
        values = [result[column] for result in results if result.get(column) is not None]
        if values:
            found[column] = {"mean": statistics.fmean(values), "least": min(values), "most": max(values)}
    return found


def shown(results: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Return the numbers of one run as a line."""
    return ", ".join(f"{column} {number(results.get(column))}" for column in columns)


def number(value: float | None) -> str:
    """Return a number with four digits, a dash for none."""
    return "-" if value is None else f"{value:.4g}"


def table(runs: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return a Markdown table: a row for each arm, the mean of each column, and its range where there are seeds."""
    rows = [["arm", "seeds", *columns]]
    for arm, found in summary(runs, columns).items():
        rows.append([arm, str(found["seeds"]), *(_cell(found.get(column)) for column in columns)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    mean, least, most = (number(found[name]) for name in ("mean", "least", "most"))
    return mean if least == most else f"{mean} ({least} to {most})"


def _command() -> str:
    """Return the command line that was given, without what stopped it early."""
    words, kept, skip = sys.argv, [], False
    for word in words:
        if skip or word.startswith("--minutes=") or word == "--table":
            skip = False
        elif word == "--minutes":
            skip = True
        else:
            kept.append(word)
    return shlex.join(["python", *kept])
