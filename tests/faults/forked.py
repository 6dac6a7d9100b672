"""Trainings in processes forked from this one, which has imported everything, so that each costs its steps alone."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pkgutil import walk_packages

import zoo
import zoo.training

PATIENCE = 300      # seconds after which a process hangs
NEEDED = (
    "accelerate", "jinja2", "matplotlib.backends.backend_agg", "matplotlib.figure", "PIL.ImageOps", "torch._dynamo",
    "zoo.cli.app", "zoo.weights",
)  # fmt: skip


def warm() -> None:
    """Import what a training needs, and let everything here compute in one thread; nothing of it starts another."""
    import torch

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    for module in (*NEEDED, *(each.name for each in walk_packages(zoo.training.__path__, "zoo.training."))):
        import_module(module)
    for name in ("dcgan", "stylegan", "vae"):
        zoo.create(name)
    gc.collect()
    gc.freeze()      # else each process would look for garbage among all that was imported, and so copy it
    atexit.register(gc.unfreeze)


class Forked:
    """One piece of work in one or several processes that form a group."""

    def __init__(self, work: Callable[[int], int], processes: int = 1):
        """Start ``work(rank)``, which returns the exit code, in each process."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.running: dict[int, int] = {}      # process -> rank
        self.codes: dict[int, int] = {}        # rank -> exit code
        for rank in range(processes):
            child = os.fork()
            if child == 0:
                _child(work, rank, processes, port)
            self.running[child] = rank

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Return whether all have ended after so long."""
        deadline = time.monotonic() + seconds
        while self.running:
            for child in list(self.running):
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    self.codes[self.running.pop(child)] = os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                break
            time.sleep(0.002)
        return not self.running

    def ended(self) -> bool:
        """Return whether all end, where one that was killed may leave others waiting: these are killed, too."""
        deadline = time.monotonic() + PATIENCE
        while self.running and time.monotonic() < deadline:
            if not self.wait(0.05) and -signal.SIGKILL in self.codes.values() and not self.wait(2):
                self.kill()
        self.kill()
        return not self.running

    def kill(self, only: int | None = None) -> None:
        """Kill -9 the process of one rank, or all that still run."""
        for child, rank in self.running.items():
            if only in (None, rank):
                os.kill(child, signal.SIGKILL)


def _child(work: Callable[[int], int], rank: int, processes: int, port: int) -> None:
    code = 1
    try:
        if processes > 1:
            told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes,
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}  # fmt: skip
            os.environ.update({name: str(value) for name, value in told.items()})
        code = work(rank)
    except Exception as error:
        if processes == 1:      # of several, one may have been killed: what the others then say is no news
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)
