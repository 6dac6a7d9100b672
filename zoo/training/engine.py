"""How the processes of a training find each other and share the work, whichever launcher started them."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from zoo.errors import ConfigError, DataError, Lost, RunError
from zoo.launch import PROCESSES, world
from zoo.training.turns import PRECISIONS

# How long a process waits for the others before it gives up: the first one may be writing large grids or a cache
# meanwhile. A process that died is noticed at once; this is for one that hangs.
TIMEOUT = timedelta(minutes=30)


def engine(precision: str | None) -> tuple[Accelerator, str]:
    """Return what connects this process to the others, and the precision: the given one, else Accelerate's.

    Raises:
        ConfigError: no such precision.
        RunError: another number of processes found each other than was asked for.
    """
    asked = _asked()
    # Accelerate takes GPUs for granted in a launched process; without any, each would train alone.
    alone = world() == 1 or torch.accelerator.is_available()
    accelerator = Accelerator(cpu=not alone, kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)])
    if asked is not None and asked != accelerator.num_processes:
        raise RunError(
            f"{asked} processes were asked for but {accelerator.num_processes} run together: "
            "launch with `zoo ... --processes N` or torchrun."
        )
    if accelerator.num_processes > 1:
        atexit.register(_part)
    chosen = precision or accelerator.mixed_precision
    if chosen not in PRECISIONS:
        raise ConfigError(f"No precision {chosen!r}; possible: {', '.join(PRECISIONS)}.")
    return accelerator, chosen


@contextmanager
def together() -> Iterator[None]:
    """Run what the processes do together within.

    Raises:
        Lost: one of the others has died, or has hung for `TIMEOUT`.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in text:
            raise
        end = f"did not answer for {TIMEOUT}" if "imed out" in text else "has ended"
        raise Lost(f"Another process of this run {end}, so this one stops too: go on with --resume.") from error


def _part() -> None:
    if torch.distributed.is_initialized():      # else torch warns as the process ends
        torch.distributed.destroy_process_group()


def _asked() -> int | None:
    """Return how many processes were asked for, if that is known.

    Raises:
        RunError: several, of Accelerate's launcher, which started one only.
    """
    count = os.environ.get(PROCESSES) or os.environ.get("WORLD_SIZE")
    by_accelerate, several = "ACCELERATE_DYNAMO_BACKEND" in os.environ, "MASTER_ADDR" in os.environ
    by_mpi = any(name in os.environ for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"))
    if count is None and by_accelerate and several and not by_mpi:
        # Where there are not two GPUs, it names a meeting point for several processes and starts one.
        raise RunError(
            "accelerate launch was asked for several processes but started one, as it does without several GPUs: "
            "use `zoo ... --processes N`, torchrun, or accelerate launch --multi_gpu --num_processes N."
        )
    return None if count is None else int(count)


def check_division(batch: int, images: int, processes: int, accumulate: int) -> None:
    """Refuse work that cannot be shared out evenly.

    Raises:
        ConfigError: the batch does not divide into equal parts.
        DataError: there are fewer images than processes.
    """
    shares = processes * accumulate
    if batch % shares:
        raise ConfigError(
            f"A batch of {batch} does not divide into {processes} processes x {accumulate} micro-batches: "
            f"make it a multiple of {shares}."
        )
    if images < processes:
        raise DataError(f"{images} images for {processes} processes: use at most {images}, or more images.")
