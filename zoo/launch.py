"""One command in several processes on this machine: we start them, pass signals on to them and speak for them.

Launchers of other kinds, torchrun and Accelerate's, start processes that know nothing of us; those agree by themselves
on who speaks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError

PROCESSES = "ZOO_PROCESSES"               # environment of a launched process: how many there must be
WORDS = "ZOO_LAST_WORDS"                  # ... folder for the line it ends with
LAUNCHER = "ZOO_LAUNCHER"                 # ... the process that launched it
FEW = 8                                   # processes that any machine may be asked for
STOPPED = (130, 143)                      # exit codes of a process that was asked to stop: it has saved its work
GRACE = 30.0                              # seconds in which the others must end after one has failed
SAVING = 600.0                            # ... after one was stopped: another may still be writing a checkpoint
PASSED_ON = {signal.SIGTERM: signal.SIGTERM, signal.SIGINT: signal.SIGINT, signal.SIGHUP: signal.SIGTERM}


def rank() -> int:
    """Return this process's place among those of its run; 0 when it is alone."""
    return int(os.environ.get("RANK", 0))


def world() -> int:
    """Return how many processes the launcher says there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def leave_word(line: str, code: int) -> bool:
    """Hand the line and exit code that end this process to whoever speaks for the run; False when it has to itself."""
    folder = os.environ.get(WORDS)
    if folder is None:
        return not _first_to_speak()
    draft = Path(folder, f".{rank()}")
    draft.write_text(f"{code}\n{line}", encoding="utf-8")
    draft.rename(Path(folder, str(rank())))
    return True


def tie() -> None:
    """Have this process killed when the one that launched it is gone, so that none is left behind (Linux alone)."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return
    import ctypes

    on_parents_death = 1      # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(on_parents_death, signal.SIGKILL)
    if os.getppid() != int(launcher):
        os._exit(1)


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run ``zoo ARGUMENTS`` in so many processes, print the one line that explains a failure, return the exit code.

    A signal to this process reaches all of them; the exit code is then 128 + its number.

    Raises:
        ConfigError: fewer than one process, or more than GPUs or, without any, than cores (but 8 always may be).
    """
    import torch

    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cores = os.cpu_count() or 1
    allowed = devices or max(FEW, cores)
    if not 1 <= processes <= allowed:
        most = f"1 to {allowed}, one a GPU" if devices else f"1 to {allowed}"
        raise ConfigError(f"--processes {processes} is not possible on this machine: give {most}.")
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        group = _Group(processes, Path(folder))
        group.run([sys.executable, "-m", "zoo", *arguments], threads=max(1, cores // processes))
        line, code = group.explained()
    if line:
        print(f"zoo: {line}", file=sys.stderr, flush=True)
    return code


class _Group:
    """The processes of one run, from their start to the last one's end."""

    def __init__(self, processes: int, words: Path):
        self.processes, self.words = processes, words
        self._running: list[subprocess.Popen[bytes]] = []
        self._heard: list[signal.Signals] = []      # signals to this process, in order
        self._causes: dict[int, int] = {}           # rank -> exit code of those that had failed when the first had

    def run(self, command: list[str], threads: int) -> None:
        """Start them all and return when all have ended, by themselves or not."""
        store = _store("127.0.0.1", 0, ours=True)      # where they find each other, on a free port
        with self._listening():
            try:
                for place in range(self.processes):
                    # A session of its own: Ctrl-C reaches it through us alone, and once.
                    environment = self._environment(place, store.port, threads)
                    self._running.append(subprocess.Popen(command, env=environment, start_new_session=True))
                self._watch()
            finally:
                self._send(signal.SIGKILL)

    def _environment(self, place: int, port: int, threads: int) -> dict[str, str]:
        """Return what torch's own launchers tell a process, and what we do."""
        told = {
            "RANK": place, "LOCAL_RANK": place, "WORLD_SIZE": self.processes, "LOCAL_WORLD_SIZE": self.processes,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True,
            PROCESSES: self.processes, WORDS: self.words, LAUNCHER: os.getpid(),
        }  # fmt: skip
        return {"OMP_NUM_THREADS": str(threads), **os.environ, **{name: str(value) for name, value in told.items()}}

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def hear(number: int, frame: Any) -> None:
            self._heard.append(signal.Signals(number))

        before = {
            number: signal.signal(number, hear) for number in PASSED_ON
            if signal.getsignal(number) is not signal.SIG_IGN
        }  # fmt: skip
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _watch(self) -> None:
        passed, deadline = 0, float("inf")
        while None in (codes := [process.poll() for process in self._running]):
            for number in self._heard[passed:]:
                self._send(PASSED_ON[number])
                passed += 1
            failed = {place: code for place, code in enumerate(codes) if code not in (None, 0, *STOPPED)}
            if failed and not self._causes:
                self._causes = {place: code for place, code in failed.items() if code is not None}
                self._send(signal.SIGTERM)
            if failed or any(code in STOPPED for code in codes):
                deadline = min(deadline, time.monotonic() + (GRACE if failed else SAVING))
            if time.monotonic() > deadline:
                self._send(signal.SIGKILL)
            time.sleep(0.1)

    def _send(self, number: signal.Signals) -> None:
        for process in self._running:
            if process.poll() is None:
                process.send_signal(number)
                if number == signal.SIGKILL:
                    process.wait()

    def explained(self) -> tuple[str, int]:
        """Return the line that says why the run ended, empty where all is well, and its exit code."""
        codes = {place: process.returncode for place, process in enumerate(self._running)}
        if not any(codes.values()):
            return "", 0
        causes = self._causes or {place: code for place, code in codes.items() if code}
        killed = {place: -code for place, code in causes.items() if code < 0 and -code != signal.SIGABRT}
        left = sorted(self.words.glob("[0-9]*"), key=lambda file: file.stat().st_mtime_ns)
        if left and (self._heard or not killed):      # where one was killed, the others only say that they lost it
            number, _, line = left[0].read_text(encoding="utf-8").partition("\n")
            return line, int(number)
        if self._heard:
            return f"stopped by {self._heard[0].name}", 128 + self._heard[0]
        place = min(killed or causes)
        line = f"failed: process {place} of {self.processes} {_end(codes[place])}, so the run was stopped"
        return line, max(1, codes[place])


def _end(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed by SIGKILL (by hand, or by the system for want of memory)"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _first_to_speak() -> bool:
    """Return whether this is the first process of a run to end with a line: all say the same, or miss the first."""
    if world() == 1:
        return True
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store = _store(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), ours=False)
        return bool(store.add(f"zoo/spoken/{attempt}", 1) == 1)
    except Exception:      # no store, or it has gone with its process: better said twice than never
        return True


def _store(host: str, port: int, *, ours: bool) -> Any:
    from datetime import timedelta

    from torch import distributed

    return distributed.TCPStore(      # type: ignore[attr-defined]
        host, port, is_master=ours, wait_for_workers=False, timeout=timedelta(seconds=5)
    )
