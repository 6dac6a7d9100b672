"""Kill -9 a process that saves and prunes checkpoints back to back: is the newest published one whole, and chosen?

Each process is forked from this one, which has torch imported, goes on where the killed one stopped, and reports a
checkpoint once `Saver.wait` has returned. Kills come at random times, or when the folder shows what is to be hit: a
draft, a checkpoint that is being replaced, or one that is being removed. After each kill the newest checkpoint must be
one of at least the reported step, equal to what was saved, and reading it must not give a single warning.

    python tests/faults/kill_in_save.py [--count 200] [--seed 0]
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import select
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from zoo.training import checkpoints
from zoo.training.checkpoints import Checkpoint
from zoo.training.saving import Saver

KEEP = 2
MOMENTS = (None, ".draft-", ".replaced-", ".old-")      # None: any
PATIENCE = 3.0      # seconds to wait for a moment


def made(step: int, attempt: int) -> Checkpoint:
    """Return the checkpoint of a step, 1.5 MB of numbers that follow from the step."""
    torch.manual_seed(step)
    model = {f"generator.{i}.weight": torch.randn(256, 256) for i in range(4)}
    optimizer = {f"generator/exp_avg/{name}": torch.randn(256, 128) for name in model}
    return Checkpoint(step, model, optimizer, {"0/rng/torch": torch.get_rng_state()}, {"attempt": attempt})


def save_for_ever(directory: Path, report: int) -> None:
    """Save one step after another, each third one twice, and write each to the pipe once it is on disk."""
    saver = Saver(directory, KEEP)
    found = checkpoints.newest(directory)
    assert found is not None
    step = found.step
    while True:
        step += 1
        for attempt in (1, 2) if step % 3 == 0 else (1,):
            saver.save(made(step, attempt))
            saver.wait()
            os.write(report, f"{step} {attempt}\n".encode())


def killed(directory: Path, moment: str | None, chance: random.Random) -> tuple[int, int]:
    """Kill a process at a moment, and return the last step and attempt that it reported; (0, 0): none."""
    reading, writing = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            save_for_ever(directory, writing)
        finally:
            os._exit(1)
    os.close(writing)
    if moment is None or chance.random() < 0.5:      # leave it to itself until something is on disk
        select.select([reading], [], [], PATIENCE)
    pace = time.monotonic() - begun
    if moment is None:
        time.sleep(chance.uniform(0, 2 * pace))
    else:
        while time.monotonic() < begun + PATIENCE and not any(n.startswith(moment) for n in os.listdir(directory)):
            pass
        time.sleep(chance.choice((0, 1e-4, 1e-3)) * chance.random())
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the process ended by itself"
    with os.fdopen(reading) as lines:
        reported = [tuple(map(int, line.split())) for line in lines]
    return (reported[-1][0], reported[-1][1]) if reported else (0, 0)


def where(directory: Path) -> str:
    """Return what the process was doing, by what it left."""
    names = os.listdir(directory)
    for beginning, doing in ((".replaced-", "replacing"), (".old-", "removing")):
        if any(name.startswith(beginning) for name in names):
            return doing
    drafts = [name for name in names if name.startswith(".draft-")]
    return f"writing file {len(os.listdir(directory / drafts[0]))}" if drafts else "between"


def fault(directory: Path, reported: tuple[int, int], warnings: list[str]) -> str | None:
    """Return what is wrong with the directory after a kill, or None."""
    published = checkpoints.steps(directory)
    found = checkpoints.newest(directory)
    if warnings:
        return f"a warning: {warnings}"
    if found is None or found.step != checkpoints.step_of(published[-1]):
        return f"the newest published one, {published[-1:]}, was not chosen"
    if (found.step, found.state["attempt"]) < reported:
        return f"{reported} was on disk, now {found.step} is the newest"
    wanted = made(found.step, found.state["attempt"])
    for name in ("model", "optimizer", "ranks"):
        left, right = getattr(found, name), getattr(wanted, name)
        if set(left) != set(right) or not all(torch.equal(left[key], right[key]) for key in right):
            return f"{name} of step {found.step} differs"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(asked.seed)
    warnings: list[str] = []
    logging.getLogger("zoo").addFilter(lambda record: bool(warnings.append(record.getMessage())))
    good, doing, last = 0, Counter[str](), 0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "checkpoints"
        checkpoints.write(directory, made(1, 1))
        for number in range(1, asked.count + 1):
            reported = killed(directory, MOMENTS[number % len(MOMENTS)], chance)
            doing[where(directory)] += 1
            wrong = fault(directory, reported, warnings)
            good += wrong is None
            last = max(last, reported[0])
            if wrong is not None:
                print(f"kill {number}: {wrong}")
                warnings.clear()
            if number % 50 == 0:
                print(f"{number} kills, {last} steps saved", flush=True)
        Saver(directory, KEEP)
        clean = all(path.name.isdecimal() for path in directory.iterdir())
    print(", ".join(f"{doing[each]} while {each}" for each in sorted(doing)))
    if not clean:
        print("a new Saver left what a crash had left")
    print(f"{good}/{asked.count} a whole checkpoint, the newest, chosen")
    return 0 if good == asked.count and clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
