"""The global generators of one process, kept with a checkpoint for third parties whose networks draw from them."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from zoo.errors import RunError


def state() -> dict[str, Tensor]:
    """Return the state of torch's, CUDA's, numpy's and Python's global generators, as tensors by name."""
    _, words, gauss = random.getstate()
    _, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    held = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_gauss": torch.tensor([place, has_gauss, cached], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        held["cuda"] = torch.cuda.get_rng_state()
    return held


def restore(held: Mapping[str, Tensor]) -> None:
    """Take back what `state` returned.

    Raises:
        RunError: a generator's state is missing or not its own.
    """
    try:
        torch.set_rng_state(held["torch"])
        gauss = [float(value) for value in held["python_gauss"].tolist()]
        random.setstate((3, tuple(held["python"].tolist()), gauss[0] if gauss else None))
        place, has_gauss, cached = held["numpy_gauss"].tolist()
        keys = held["numpy"].numpy().astype(np.uint32)
        np.random.set_state(("MT19937", keys, int(place), int(has_gauss), cached))
        if "cuda" in held and torch.cuda.is_available():
            torch.cuda.set_rng_state(held["cuda"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RunError(f"The checkpoint's random state cannot be taken up ({error}): use an older one.") from error
