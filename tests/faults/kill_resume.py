"""Kill -9 a training wherever it is, resume it, perhaps kill it again: it must end as one that was never disturbed.

The trainings are tiny ones of several kinds. Each process is forked from this one, which has torch, zoo and the plugins
imported, so a run costs little more than its steps. Half of the kills come at a random time, half at one of the moments
in which the training is about to open, make, rename or remove a file of its run: log lines, grids, each file of a
checkpoint, its publication, pruning, run.json, the model folder. After some kills the last bytes of the log are cut off
as well, as they would be if the machine had failed. Then weights, averages, optimisers, random state, log lines but for
their clock, and grids are compared bit for bit.

    python tests/faults/kill_resume.py [--count 200] [--seed 0] [--only dcgan] [--no-curves]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import Forked, warm
from kinds import KINDS, Kind, emoji, train
from undisturbed import differences

import zoo
from zoo.training import log

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")      # Python's audit events


def started(kind: Kind, out: Path, heard: Callable[[int], object] | None = None) -> Forked:
    """Start a training; its first process tells `heard` the number of each change of a file, before it is made."""

    def work(rank: int) -> int:
        if rank == 0 and heard is not None:
            sys.addaudithook(_counter(out, heard))
        train(kind, out)
        return 0

    return Forked(work, kind.processes)


def _deadly(number: int) -> Callable[[int], None]:
    def heard(count: int) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return heard


def _counter(out: Path, heard: Callable[[int], object]) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that counts what is about to happen to files of a run and tells the number."""
    count, beginning = 0, str(out)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if os.fspath(arguments[0]).startswith(beginning):
            count += 1
            heard(count)

    return hook


@dataclass(frozen=True)
class Reference:
    """An undisturbed run of a kind: where it is, how long it took, how often it changed a file."""

    directory: Path
    seconds: float
    changes: int


def reference(kind: Kind, directory: Path) -> Reference:
    """Train undisturbed; the first process counts the moments in which it changes a file of the run."""
    note = directory.with_name("changes")
    begun = time.monotonic()
    training = started(kind, directory, lambda count: note.write_text(str(count)))
    if not training.wait() or any(training.codes.values()):
        raise SystemExit(f"{kind.name}: the undisturbed run failed: {training.codes}")
    return Reference(directory, time.monotonic() - begun, int(note.read_text()))


def disturb(kind: Kind, undisturbed: Reference, out: Path, chance: random.Random) -> tuple[str, list[str]]:
    """Kill and resume a training until it ends; return what was done, and what it left otherwise than it should."""
    done: list[str] = []
    for attempt in range(chance.choice((1, 1, 1, 2, 2, 3))):
        share = chance.random() / (attempt + 1)      # what resumed has less to do: later kills come early
        if chance.random() < 0.5:
            training = started(kind, out, _deadly(1 + int(share * undisturbed.changes)))
        else:
            training = started(kind, out)
            if not training.wait(share * undisturbed.seconds):
                training.kill(chance.choice((0, kind.processes - 1, None)))
        if not training.ended():
            training.kill()
            return " + ".join(done), ["the training hangs"]
        died = -signal.SIGKILL in training.codes.values()
        done.append(where(out) if died else "after the end")
        if died and chance.random() < 0.15:
            done[-1] += ", log cut" if cut(out, chance) else ""
    training = started(kind, out)
    if not training.wait() or any(training.codes.values()):
        training.kill()
        return " + ".join(done), [f"the resumed training ended with {training.codes}"]
    return " + ".join(done), differences(out, undisturbed.directory)


def cut(out: Path, chance: random.Random) -> bool:
    """Cut the log off within its last line, as a machine that fails may leave it: what a checkpoint follows stays."""
    log = out / "log.jsonl"
    texts = log.read_text().splitlines(keepends=True) if log.exists() else []
    saved = [int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdecimal()] if texts else []
    if not texts or not texts[-1].endswith("\n"):      # nothing to cut, or the kill has done so already
        return False
    if json.loads(texts[-1])["step"] <= max(saved, default=0):
        return False
    os.truncate(log, log.stat().st_size - chance.randrange(1, len(texts[-1])))
    return True


def where(out: Path) -> str:
    """Return what the process was doing, by what it left."""
    if not (out / "run.json").exists():
        return "before run.json"
    if (out / "model").is_dir():
        return "in model/"
    names = [path.name for path in (out / "checkpoints").iterdir()] if (out / "checkpoints").is_dir() else []
    for beginning, doing in ((".draft-", "in a checkpoint"), (".replaced-", "replacing"), (".old-", "pruning")):
        if any(name.startswith(beginning) for name in names):
            return doing
    return "between checkpoints" if names else "before the first checkpoint"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds of training whose name holds this")
    parser.add_argument("--no-curves", action="store_true", help="draw none: they take as long as all the steps")
    asked = parser.parse_args()
    kinds = [kind for kind in KINDS if asked.only in kind.name]
    warm()
    if asked.no_curves:
        log.curves = lambda lines, path: None
    for kind in kinds:
        emoji(zoo.create(kind.architecture, **kind.config).config.resolution)
    logging.getLogger("zoo").setLevel(logging.ERROR)
    chance, doing, good, begun = random.Random(asked.seed), Counter[str](), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        known: dict[str, Reference] = {}
        for number in range(asked.count):
            kind = kinds[number % len(kinds)]
            if kind.name not in known:
                folder = Path(name) / f"undisturbed-{number}"
                folder.mkdir()
                known[kind.name] = reference(kind, folder / "run")
            out = Path(name) / f"disturbed-{number}"
            what, wrong = disturb(kind, known[kind.name], out, chance)
            doing.update(each.removesuffix(", log cut") for each in what.split(" + "))
            doing["log cut"] += what.count(", log cut")
            good += not wrong
            if wrong:
                print(f"{number}, {kind.name}, killed {what}: {'; '.join(wrong)[:2000]}", flush=True)
            with suppress(OSError):
                shutil.rmtree(out)
            if (number + 1) % 10 == 0:
                print(f"{number + 1} runs, {time.monotonic() - begun:.0f} s", flush=True)
    print(", ".join(f"{count} {each}" for each, count in sorted(doing.items())))
    print(f"{good}/{asked.count} bit-exact")
    return 0 if good == asked.count else 1


if __name__ == "__main__":
    raise SystemExit(main())
