"""How many images at a time: what is done when memory runs out, and a dry run that finds what fits beforehand."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from zoo.errors import RunError
from zoo.memory import free

# How torch's allocators say it; those of CUDA and other devices have a class of their own.
WORDS = ("can't allocate memory", "not enough memory", "failed to allocate", "out of memory")
SHARE = 0.8                             # of the memory that is free, for what a micro-batch takes at most
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")      # Linux's account of this process

Rehearse = Callable[[int], None]        # play one micro-batch, when a share is split into so many, without a step


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that there is no memory left, on whichever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)


def give_back() -> None:
    """Let go of the memory that nothing uses any more."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)      # glibc keeps what was freed, and it would look as if in use
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def finer(images: int, accumulate: int) -> int:
    """Return into how many micro-batches a share of so many images is split next: at least twice as many, all equal.

    Raises:
        RunError: each holds one image already.
    """
    for more in range(2 * accumulate, images + 1):
        if images % more == 0:
            return more
    raise RunError(
        "Out of memory with one image at a time: use --precision bf16, a smaller model or resolution, or more memory."
    )


def fitting(rehearse: Rehearse, images: int, states: int, device: torch.device) -> int:
    """Return into how few equal micro-batches a share of so many images may be split to fit into free memory.

    Args:
        rehearse: plays one micro-batch of every phase, given the number of micro-batches.
        images: of this process's share of a batch.
        states: bytes that the optimisers will take besides.

    Raises:
        RunError: not even one image at a time fits.
    """
    splits = [count for count in range(1, images + 1) if images % count == 0]      # few, large parts first
    if device.type == "cpu":
        return _measured(rehearse, splits, images, states)
    return _tried(rehearse, splits, states, device)


def _tried(rehearse: Rehearse, splits: Sequence[int], states: int, device: torch.device) -> int:
    # A GPU refuses what does not fit, so the largest is tried first.
    for count in splits:
        fits = _fits(rehearse, count, states, device)
        give_back()
        if fits:
            return count
    return finer(1, 1)


def _fits(rehearse: Rehearse, count: int, states: int, device: torch.device) -> bool:
    # A function of its own, so that the block of one trial has gone before the next one asks for its own.
    try:
        block = torch.empty(states, dtype=torch.uint8, device=device)      # as the optimisers will take
        rehearse(count)
        del block
        return True
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        return False


def _measured(rehearse: Rehearse, splits: Sequence[int], images: int, states: int) -> int:
    # A CPU's system does not refuse, it kills: two small parts are measured, and a line through them says what fits.
    give_back()
    begun = _account("VmRSS")
    sizes = [images // count for count in reversed(splits) if images // count > 1]
    sizes = [size for size in sizes if size <= 4 * sizes[0]]
    sizes, peaks = sizes[:: max(1, len(sizes) - 1)], []      # the smallest and the largest of these
    if begun is None or len(sizes) < 2:
        return splits[0]
    for count in (images // size for size in sizes):
        with suppress(OSError):
            RESET.write_text("5")      # the highest mark begins anew
        try:
            rehearse(count)
        except (RuntimeError, MemoryError) as error:
            if ran_out(error):
                return splits[-1]
            raise
        peaks.append((_account("VmHWM") or begun) - begun)
        give_back()
    each = max(0.0, (peaks[1] - peaks[0]) / (sizes[1] - sizes[0]))
    room = SHARE * free() / int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - states
    fit = [count for count in splits if peaks[0] + each * (images // count - sizes[0]) <= room]
    return fit[0] if fit else splits[-1]


def _account(name: str) -> int | None:
    """Return an entry of Linux's account of this process in bytes; None on other systems."""
    with suppress(OSError, ValueError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None
