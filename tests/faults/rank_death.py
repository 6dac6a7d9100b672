"""Kill -9 one of two training processes at a random time: does the whole run end, soon, with one line, and wholly?

Runs are started by `zoo train --processes 2` and by torchrun in turns. Each must end within 60 seconds with an exit
code other than 0, name the process and the signal in one line (torchrun does so in its report), print at most one line
of its own, and leave no process behind.

    python tests/faults/rank_death.py [--count 20] [--seed 0] [--longest 20]
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

LIMIT = 60.0         # seconds from the kill to the end of the run
TINY = {"resolution": 16, "generator_width": 4, "discriminator_width": 4, "latent": 8}
OURS = [sys.executable, "-m", "zoo"]
THEIRS = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "zoo"]


def started(ours: bool, out: Path, voice: Path) -> subprocess.Popen[bytes]:
    """Start a run in two processes that writes what it says to a file."""
    settings = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    command = [*(OURS if ours else THEIRS), "train", "dcgan", "emoji", "--out", str(out), "--kimg", "1000",
               "--batch", "8", *settings, *(["--processes", "2"] if ours else [])]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with voice.open("wb") as file:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file, env=environment)


def ranks(launcher: int) -> dict[int, int]:
    """Return rank -> process id of the training processes that a launcher has started."""
    found = {}
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        with suppress(OSError):      # a short-lived child that is no training process
            told = re.search(rb"(?:^|\0)RANK=(\d+)\0", Path(f"/proc/{child}/environ").read_bytes())
            if told:
                found[int(told[1])] = int(child)
    return found


def both(process: subprocess.Popen[bytes]) -> dict[int, int]:
    """Wait until two training processes are there and return them."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it had begun"
        if len(found := ranks(process.pid)) == 2:
            return found
        time.sleep(0.05)
    raise AssertionError("no two processes came up")


def alive(pid: int) -> bool:
    """Return whether a process runs: one that has died and was not yet asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def faults(process: subprocess.Popen[bytes], victim: int, pids: list[int], ours: bool, said: str) -> list[str]:
    """Return what is wrong with the end of a run."""
    found = []
    if process.returncode == 0:
        found.append("exit code 0")
    lines = [line for line in said.splitlines() if line.startswith("zoo: ")]
    if ours and (len(said.splitlines()) != 1 or f"process {victim} of 2 was killed by SIGKILL" not in said):
        found.append(f"said {said!r}")
    if not ours and (len(lines) > 1 or not re.search(rf"rank +: {victim}\b[^\[]*SIGKILL", said)):
        found.append(f"said {lines}, or torchrun named another process: {said[-2000:]}")
    if left := [pid for pid in pids if alive(pid)]:
        found.append(f"left {left} behind")
    return found


def one(number: int, chance: random.Random, longest: float, folder: Path) -> list[str]:
    """Start a run, kill one of its processes, and return what is wrong with how it ended."""
    ours, victim, lived = number % 2 == 0, chance.randrange(2), chance.uniform(0, longest)
    voice = folder / f"{number}.txt"
    process = started(ours, folder / str(number), voice)
    pids: dict[int, int] = {}
    try:
        pids = both(process)
        time.sleep(lived)
        os.kill(pids[victim], signal.SIGKILL)
        killed = time.monotonic()
        try:
            process.wait(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            return [f"still there after {LIMIT:g} seconds"]
        took = time.monotonic() - killed
        found = faults(process, victim, list(pids.values()), ours, voice.read_text(errors="replace"))
        launcher = "zoo" if ours else "torchrun"
        print(f"{number + 1}: {launcher}, rank {victim} after {lived:.1f} s, ended in {took:.1f} s, code "
              f"{process.returncode} {'; '.join(found)}", flush=True)  # fmt: skip
        return found
    finally:
        for pid in [process.pid, *pids.values()]:
            if process.returncode is None or alive(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait()


def main() -> int:
    """Kill one process of each of so many runs; 0 if all ended as they must."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--count", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--longest", type=float, default=20.0, help="seconds that a run lives before the kill")
    chosen = options.parse_args()
    chance = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        good = sum(not one(number, chance, chosen.longest, Path(folder)) for number in range(chosen.count))
    print(f"{good}/{chosen.count} ended with one line and no process left")
    return 0 if good == chosen.count else 1


if __name__ == "__main__":
    sys.exit(main())
