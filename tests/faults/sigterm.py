"""Send SIGTERM or Ctrl-C to a `zoo train` wherever it is: does it save and end soon, and go on as if nothing had been?

Real commands, in one process or two. The signal comes while the command starts, in the first step, as a grid or a
checkpoint is being written, or at a random time; to the command, or to one of the two processes that it started. The
command must end within 30 seconds, with 143 or 130, and say where it was saved; before the training and after it the
signal itself may end it. A second Ctrl-C ends it at once. Then it is resumed, and compared bit for bit with a run that
was never stopped.

    python tests/faults/sigterm.py [--count 50] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from forked import Forked, warm
from undisturbed import differences

LIMIT = 30.0          # seconds from the signal to the end
STARTING = 120.0      # seconds that a command may take to begin
TINY = {"resolution": 16, "generator_width": 4, "discriminator_width": 4, "latent": 8}
SAVED = r"zoo: stopped by \w+ at (\S+) of 11 kimg, saved at (\S+): go on with --resume\."
WHEN = ("while it starts", "in the first step", "in a grid", "in a checkpoint", "at any time", "at any time")


def command(out: Path) -> list[str]:
    """Return the arguments of a training of 44 steps, with checkpoints after 12, 24, 36 and 44."""
    settings = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    return ["train", "dcgan", "emoji", "--out", str(out), "--kimg", "11", "--batch", "250", "--every", "3", *settings]


def finished(out: Path, processes: int, *more: str) -> bool:
    """Run a training to its end, in processes forked from this one, and return whether it went well."""

    def work(rank: int) -> int:
        from zoo.cli import main

        sys.stdout = open(os.devnull, "w")   # noqa: SIM115  (open for the life of the process)
        return main([*command(out), *more])

    training = Forked(work, processes)
    return training.wait() and not any(training.codes.values())


def begun(process: subprocess.Popen[str], out: Path, when: str, chance: random.Random, seconds: float) -> None:
    """Wait until it is time for the signal."""
    if when == "while it starts":
        time.sleep(chance.uniform(0, 5))
        return

    def there() -> bool:
        if when == "in the first step":
            return (out / "checkpoints" / "00000000").is_dir()
        if when == "in a grid":
            return (out / "samples" / chance_of_grid).exists()
        if when == "in a checkpoint":
            return any(path.name.startswith(".draft-") for path in _listed(out / "checkpoints"))
        return (out / "samples" / "000000.png").exists()

    chance_of_grid = chance.choice(("000000.png", "000010.png"))
    deadline = time.monotonic() + STARTING
    while not there() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    if when == "at any time":
        time.sleep(chance.uniform(0, 0.7 * seconds))


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def ranks(launcher: int) -> list[int]:
    """Return the processes that a command has started, if it still runs."""
    try:
        return [int(child) for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()]
    except OSError:
        return []


def faults(out: Path, number: signal.Signals, code: int, said: str, *, twice: bool, one: bool) -> list[str]:
    """Return what is wrong with the way in which a command ended."""
    found = []
    said = "\n".join(line for line in said.splitlines() if not line.startswith("zoo: Step "))      # the watchdog's
    lines = [line for line in said.splitlines() if not line.startswith("zoo: stopped at once")]
    saved = re.fullmatch(SAVED, said.strip())
    before = not (out / "checkpoints" / "00000000").exists() and not (out / "log.jsonl").exists()
    outside = before or (out / "model").is_dir()
    allowed = [128 + number] if saved or not outside else [128 + number, -number, 0]
    if one and not saved:
        allowed.append(1)      # one of two that had not begun to listen was killed: the run says so and ends
    if twice:
        allowed += [128 + number, -number]      # the second may come when nobody listens any more: all is saved by then
    if code not in allowed and not (code == 0 and (out / "model" / "manifest.json").exists()):
        found.append(f"exit code {code}")
    if len(lines) > 1 or "Traceback" in said:
        found.append(f"said {said!r}")
    if saved and not twice:
        step = round(float(saved[2]) * 4)
        if saved[1] != saved[2] or not (out / "checkpoints" / f"{step:08}").is_dir():
            found.append(f"said {said!r}, but kept {sorted(path.name for path in (out / 'checkpoints').iterdir())}")
    elif not outside and code != 0 and not twice:
        found.append(f"in the middle of the training it said {said!r}")
    return found


def stopped(
    out: Path, processes: int, when: str, chance: random.Random, seconds: float
) -> tuple[str, float, list[str]]:
    """Start a command and stop it; return what was done, how long the end took, and what was wrong with it."""
    number = signal.SIGTERM if chance.random() < 0.7 else signal.SIGINT
    twice = number == signal.SIGINT and chance.random() < 0.4
    one = processes == 2 and number == signal.SIGTERM and chance.random() < 0.5
    more = ["--processes", "2"] if processes == 2 else []
    process = subprocess.Popen([sys.executable, "-m", "zoo", *command(out), *more], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, start_new_session=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    begun(process, out, when, chance, seconds)
    since = time.monotonic()
    started = ranks(process.pid)
    if one and started:
        os.kill(chance.choice(started), number)
    else:
        process.send_signal(number)
    if twice:
        time.sleep(chance.uniform(0, 0.2))
        process.send_signal(number)
    try:
        _, said = process.communicate(timeout=2 * LIMIT)
    except subprocess.TimeoutExpired:
        for child in (process.pid, *ranks(process.pid)):
            os.kill(child, signal.SIGKILL)
        process.communicate()
        return f"{number.name} {when}", 2 * LIMIT, ["it hangs"]
    took = time.monotonic() - since
    wrong = faults(out, number, process.returncode, said, twice=twice, one=one and bool(started))
    what = f"{number.name}{' twice' if twice else ''} to {'one of two' if one else f'{processes}'} {when}"
    return f"{what}, exit code {process.returncode}", took, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:      # of a shell that started this in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    warm()
    chance, good, slowest, codes = random.Random(asked.seed), 0, 0.0, Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        undisturbed: dict[int, tuple[Path, float]] = {}
        for index in range(asked.count):
            processes = 2 if index % 5 == 4 else 1
            if processes not in undisturbed:
                since = time.monotonic()
                undisturbed[processes] = Path(name) / f"undisturbed-{processes}", 0.0
                if not finished(undisturbed[processes][0], processes):
                    raise SystemExit("the undisturbed run failed")
                undisturbed[processes] = undisturbed[processes][0], time.monotonic() - since
            out = Path(name) / f"stopped-{index}"
            reference, seconds = undisturbed[processes]
            what, took, wrong = stopped(out, processes, WHEN[index % len(WHEN)], chance, seconds)
            slowest = max(slowest, took)
            if took > LIMIT:
                wrong.append(f"it took {took:.0f} s")
            if not wrong and not finished(out, processes, "--resume"):
                wrong = ["it cannot be resumed"]
            wrong = wrong or differences(out, reference)
            good += not wrong
            codes[what.rpartition(" ")[2]] += 1
            print(f"{index + 1}: {what}, {took:.1f} s{': ' if wrong else ''}{'; '.join(wrong)[:1500]}", flush=True)
            shutil.rmtree(out, ignore_errors=True)
    print(", ".join(f"{count} x exit code {code}" for code, count in sorted(codes.items())))
    print(f"slowest {slowest:.1f} s; all others resumed to the bit")
    print(f"{good}/{asked.count} under {LIMIT:.0f} s")
    return 0 if good == asked.count else 1


if __name__ == "__main__":
    raise SystemExit(main())
