"""A training that breaks off between two checkpoints and is resumed, beside one that nothing disturbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from faults.kinds import BATCH, SCHEDULE, emoji
from faults.undisturbed import differences

import zoo

STEPS, BREAKS = 12, 9      # of the whole training; at a log line, one step past a checkpoint


class BrokeOff(Exception):
    """Stands for whatever ends a process."""


def broken_off(folder: Path, make: Callable[[], zoo.Model], **options: Any) -> list[str]:
    """Return in what a training that broke off and was resumed differs from one that did not; see `differences`.

    Args:
        make: returns the model as it was before training, the same each time.
        options: of `zoo.train`.
    """

    def train(out: Path, progress: Callable[..., None] | None = None) -> None:
        model = make()
        images = emoji(model.config.resolution)
        zoo.train(model, images, kimg=STEPS * BATCH / 1000, batch=BATCH, out=out, resume=True, progress=progress,
                  **{**SCHEDULE, **options})  # fmt: skip

    def end(done: float, total: float, values: Mapping[str, float | None]) -> None:
        if round(done * 1000 / BATCH) >= BREAKS:
            raise BrokeOff

    train(folder / "whole")
    with pytest.raises(BrokeOff):
        train(folder / "parts", end)
    train(folder / "parts")
    return differences(folder / "parts", folder / "whole")
