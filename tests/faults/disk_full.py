"""Run out of disk on a file system that is really full: are older checkpoints kept, and does the training go on?

A small tmpfs is mounted (in a user namespace where that takes no root). First the `Saver` alone: too little room, and
a disk that ends after each number of files of the draft. Then trainings whose folder fills up at each tick: they must
reach their end, keep their last whole checkpoint, say what to do, and once there is room again end on resume with the
weights of a training that was never disturbed.

    python tests/faults/disk_full.py [--count 10]
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path

import torch
from safetensors.torch import load_file

import zoo
from zoo.errors import RunError
from zoo.training import checkpoints
from zoo.training.checkpoints import Checkpoint
from zoo.training.saving import Saver

MIB = 1 << 20
TINY = {"resolution": 16, "latent": 8, "generator_width": 8, "discriminator_width": 8}
TRAINING = {"batch": 8, "kimg": 0.08, "tick_kimg": 0.008, "checkpoint_kimg": 0.016, "sample_kimg": 1.0, "keep": 2}
TICKS = 10      # of which each second one saves a checkpoint

warnings: list[str] = []      # lines of the logger since the last look


@contextmanager
def small_disk(options: str) -> Iterator[Path]:
    """Mount a tmpfs and return its folder."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", name], check=True, capture_output=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def expect(holds: bool, what: object) -> None:
    if not holds:
        raise AssertionError(what)


def fill(path: Path) -> None:
    """Take all room that is left on the disk of a path, to the last byte."""
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def leave_files(folder: Path, free: int) -> None:
    """Take all but so many of the files that the disk can hold."""
    folder.mkdir()
    made = []
    try:
        while True:
            made.append(folder / str(len(made)))
            made[-1].touch()
    except OSError as error:
        expect(error.errno == ENOSPC, error)
    for path in made[-1 - free : -1]:
        path.unlink()


def made(step: int) -> Checkpoint:
    torch.manual_seed(step)
    return Checkpoint(step, {"a": torch.randn(MIB // 4)}, {"b": torch.randn(9)}, {"0/c": torch.zeros(3)}, {"kimg": 1})


def refused_and_taken_up(directory: Path, saver: Saver, free_up: Callable[[], object], words: str) -> None:
    """Save on the full disk, then, once there is room, again."""
    warnings.clear()
    before = sorted(os.listdir(directory))
    saver.save(made(3))
    try:
        saver.wait()
    except RunError as error:
        expect(words in str(error) and "Free some space" in str(error), error)
        expect(warnings == [str(error)], warnings)
    else:
        raise AssertionError("the save succeeded")
    expect(sorted(os.listdir(directory)) == before, f"{before} became {sorted(os.listdir(directory))}")
    found = checkpoints.newest(directory)
    expect(found is not None and found.step == 2 and torch.equal(found.model["a"], made(2).model["a"]), "step 2")
    free_up()
    saver.save(made(4))
    saver.wait()
    found = checkpoints.newest(directory)
    expect(found is not None and found.step == 4, "step 4")
    expect(len(warnings) == 1, warnings)


def no_room() -> None:
    """A disk without room: told before a byte is written, with what is missing."""
    with small_disk("size=8m") as disk:
        saver = Saver(disk / "run" / "checkpoints", keep=2)
        for step in (1, 2):
            saver.save(made(step))
        saver.wait()
        fill(disk / "others")
        refused_and_taken_up(saver.directory, saver, (disk / "others").unlink, "MiB more are needed")


def ends_after(files: int) -> Callable[[], None]:
    """A disk that takes so many files more, the draft's folder being the first: nobody could know before."""

    def case() -> None:
        with small_disk("size=32m,nr_inodes=40") as disk:
            saver = Saver(disk / "checkpoints", keep=2)
            for step in (1, 2):
                saver.save(made(step))
            saver.wait()
            leave_files(disk / "others", files)

            def free_up() -> None:
                for path in (disk / "others").iterdir():
                    path.unlink()

            refused_and_taken_up(saver.directory, saver, free_up, "ran full")

    return case


def train(out: Path, *, resume: bool = False, progress: Callable[..., None] | None = None) -> None:
    torch.manual_seed(0)
    zoo.train(zoo.create("dcgan", **TINY), "emoji", out=out, resume=resume, progress=progress, **TRAINING)


def fills_at(tick: int, reference: Path) -> Callable[[], None]:
    """A training whose disk fills up at a tick, stays full, and has room again when it is resumed."""

    def case() -> None:
        with small_disk("size=24m") as disk:
            ticks: list[float] = []

            def progress(done: float, total: float, means: object) -> None:
                ticks.append(done)
                if len(ticks) == tick:
                    fill(disk / "others")

            said = ""
            try:
                train(disk / "run", progress=progress)
            except RunError as error:
                said = str(error)
            expect(len(ticks) == TICKS, f"ended at tick {len(ticks)}: {said}")
            expect("Free some space" in said and "\n" not in said, f"said {said!r}")
            found = checkpoints.newest(disk / "run" / "checkpoints")
            last = (tick - 1) // 2 * 2      # a tick comes before its checkpoint
            expect(found is not None and found.step == last, f"step {found and found.step} is left instead of {last}")
            (disk / "others").unlink()
            train(disk / "run", resume=True)
            same_end(disk / "run", reference)

    return case


def full_for_a_while(reference: Path) -> None:
    """A training whose disk is full from tick 3 to tick 7: it ends as if nothing had been."""
    with small_disk("size=24m") as disk:
        ticks: list[float] = []
        warnings.clear()

        def progress(done: float, total: float, means: object) -> None:
            ticks.append(done)
            if len(ticks) == 3:
                fill(disk / "others")
            if len(ticks) == 7:
                (disk / "others").unlink()

        train(disk / "run", progress=progress)
        steps = [line.split()[4] for line in warnings if line.startswith("The checkpoint of step")]
        expect(steps == ["4", "6"], warnings)
        same_end(disk / "run", reference)


def same_end(run: Path, reference: Path) -> None:
    """Compare the result and the last checkpoint of two trainings, bit for bit."""
    left, right = (load_file(each / "model" / "model.safetensors") for each in (run, reference))
    expect(left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left), "the model")
    one, other = (checkpoints.newest(each / "checkpoints") for each in (run, reference))
    assert one is not None
    assert other is not None
    expect(one.step == other.step, f"step {one.step} instead of {other.step}")
    for name in ("model", "optimizer", "ranks"):
        a, b = getattr(one, name), getattr(other, name)
        expect(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name)


def may_mount() -> bool:
    try:
        with small_disk("size=1m"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=TICKS, help="trainings, each filling up at another tick")
    asked = parser.parse_args()
    if not may_mount():
        inside = ["unshare", "--map-root-user", "--mount"]
        if "DISK_FULL_INSIDE" not in os.environ and subprocess.run([*inside, "true"], check=False).returncode == 0:
            os.environ["DISK_FULL_INSIDE"] = "1"
            os.execvp(inside[0], [*inside, sys.executable, *sys.argv])
        print("skipped: no file system can be mounted here")
        return 0
    torch.set_num_threads(1)
    logging.getLogger("zoo").addFilter(lambda record: bool(warnings.append(record.getMessage())))
    with tempfile.TemporaryDirectory() as name:
        reference = Path(name) / "run"
        cases = {"no room": no_room, **{f"room for {files} more files": ends_after(files) for files in range(6)}}
        if asked.count:
            train(reference)
            cases["full for a while"] = lambda: full_for_a_while(reference)
        cases |= {f"full at tick {tick}": fills_at(tick, reference) for tick in range(1, asked.count + 1)}
        good = 0
        for what, case in cases.items():
            try:
                case()
                good += 1
            except Exception as error:      # whatever it is, the others are of interest too
                print(f"{what}: {type(error).__name__}: {error}")
            else:
                print(f"{what}: ok", flush=True)
    print(f"{good}/{len(cases)} older ones kept, trained on, taken up again")
    return 0 if good == len(cases) else 1


if __name__ == "__main__":
    raise SystemExit(main())
