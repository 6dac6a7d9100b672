"""One command in several processes on this machine: torch's elastic agent starts them, we speak for them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from zoo.errors import ConfigError

PROCESSES = "ZOO_PROCESSES"               # environment of a launched process: how many there must be
FEW = 8                                   # processes that any machine may be asked for
WORDS = "ZOO_LAST_WORDS"                  # environment of a launched process: folder for the line it ends with


def rank() -> int:
    """Return this process's place among those of its run; 0 when it is alone."""
    return int(os.environ.get("RANK", 0))


def leave_word(line: str, code: int) -> bool:
    """Hand the line and exit code that end this process to the one that launched it; False when nobody did."""
    folder = os.environ.get(WORDS)
    if folder is None:
        return False
    Path(folder, str(rank())).write_text(f"{code}\n{line}", encoding="utf-8")
    return True


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run ``zoo ARGUMENTS`` in so many processes, print the one line that explains a failure, return the exit code.

    A signal to this process reaches all of them; the exit code is then 128 + its number.

    Raises:
        ConfigError: fewer than one process, or more than GPUs or, without any, than cores (but 8 always may be).
    """
    import torch

    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    allowed = devices or max(FEW, os.cpu_count() or 1)
    if not 1 <= processes <= allowed:
        most = f"1 to {allowed}, one a GPU" if devices else f"1 to {allowed}"
        raise ConfigError(f"--processes {processes} is not possible on this machine: give {most}.")
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ[PROCESSES] = str(processes)
    if not devices:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        os.environ[WORDS] = folder
        try:
            return _supervise([sys.executable, "-m", "zoo", *arguments], processes, Path(folder))
        finally:
            for name in (PROCESSES, WORDS):
                del os.environ[name]


def _supervise(command: list[str], processes: int, words: Path) -> int:
    import logging

    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)     # the agent's view of what we say in one line below
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id="zoo",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",      # a free port of this machine's own
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except SignalException as stopped:
        print(f"zoo: stopped by {stopped.sigval.name}", file=sys.stderr, flush=True)
        return 128 + int(stopped.sigval)
    except ChildFailedError as error:
        return _explain(error, words)
    finally:
        logging.disable(logging.NOTSET)
    return 0


def _explain(error: Exception, words: Path) -> int:
    # The first to leave word is the cause; the others fail because it is gone.
    left = sorted(words.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    if left:
        code, _, line = left[0].read_text(encoding="utf-8").partition("\n")
        print(f"zoo: {line}", file=sys.stderr, flush=True)
        return int(code)
    place, failure = error.get_first_failure()    # type: ignore[attr-defined]
    ended = int(failure.exitcode)
    end = f"was killed by signal {-ended}" if ended < 0 else f"ended with exit code {ended}"
    print(f"zoo: failed: process {place} {end}, so the run was stopped", file=sys.stderr, flush=True)
    return max(1, ended)
