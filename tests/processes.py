"""Several real processes that form a group, as torchrun would have started them, without its seconds of importing."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed

PRELOADED = ["accelerate", "matplotlib.figure", "torch", "torch._dynamo", "zoo.loading", "zoo.training.loop"]
PATIENCE = 120.0      # seconds until processes that have not ended count as hanging


def together(work: Callable[..., Any], processes: int, *arguments: Any) -> list[Any]:
    """Return what ``work(*arguments)`` returned in each of so many processes; `work` is a function of a module.

    Raises:
        AssertionError: one failed, with its traceback, or hangs.
    """
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("forkserver")      # forks a process that has imported, but computed nothing
    context.set_forkserver_preload(PRELOADED)
    with TemporaryDirectory() as folder:
        group = [
            context.Process(target=_work, args=(Path(folder), rank, processes, store.port, work, arguments))
            for rank in range(processes)
        ]
        for process in group:
            process.start()
        deadline = time.monotonic() + PATIENCE
        for process in group:
            process.join(max(0.0, deadline - time.monotonic()))
        hanging = [rank for rank, process in enumerate(group) if process.is_alive()]
        for process in group:
            process.kill()
            process.join()
        said = "\n".join(path.read_text() for path in sorted(Path(folder).glob("*.txt")))
        assert not said, said
        assert not hanging, f"processes {hanging} hang"
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(processes)]


def _work(folder: Path, rank: int, processes: int, port: int, work: Callable[..., Any], arguments: Any) -> None:
    os.environ.update({
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
    })  # fmt: skip
    torch.set_num_threads(1)
    try:
        torch.save(work(*arguments), folder / f"{rank}.pt")
    except BaseException:
        (folder / f"{rank}.txt").write_text(f"process {rank}: {traceback.format_exc()}")
    os._exit(0)
