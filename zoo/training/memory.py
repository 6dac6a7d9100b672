"""How many images at a time: what is done when memory runs out, and a dry run that finds what fits beforehand."""

from __future__ import annotations

import torch

from zoo.errors import RunError

# How torch's allocators say it; those of CUDA and other devices have a class of their own.
WORDS = ("can't allocate memory", "not enough memory", "failed to allocate", "out of memory")


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that there is no memory left, on whichever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in WORDS)


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
