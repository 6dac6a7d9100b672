"""Saving beside the training: a step waits for a copy of its tensors alone, the disk is another thread's business."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from zoo.errors import RunError
from zoo.training import checkpoints
from zoo.training.checkpoints import Checkpoint

log = logging.getLogger("zoo")


class Saver:
    """Writes one checkpoint after another, in order, in a thread of its own; used by the first process alone.

    A checkpoint that cannot be written, for want of space or of permission, costs one warning line: older ones stay,
    the training goes on and the next one is tried. Host memory holds one copy of the tensors while they are written.
    """

    def __init__(self, directory: Path, keep: int):
        """Make the folder and clear away what a crashed run left.

        Raises:
            RunError: it cannot be made or written to.
        """
        checkpoints.prepare(directory)
        self.directory, self.keep = directory, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[RunError | None] | None = None

    def save(self, checkpoint: Checkpoint, *, spared: int | None = None) -> None:
        """Copy a checkpoint, once the one before is on disk, and return while the copy is being written.

        Args:
            spared: the newest checkpoint up to this step is kept besides.
        """
        self._join()
        self._last = self._thread.submit(self._write, copied(checkpoint), spared)

    def wait(self) -> None:
        """Return when the last checkpoint is on disk.

        Raises:
            RunError: that one could not be written.
        """
        failure = self._join()
        if failure is not None:
            raise failure

    def _join(self) -> RunError | None:
        return None if self._last is None else self._last.result()

    def _write(self, checkpoint: Checkpoint, spared: int | None) -> RunError | None:
        try:
            checkpoints.write(self.directory, checkpoint)
        except (RunError, MemoryError) as error:
            failure = str(error) or f"There is no memory to write the checkpoint of step {checkpoint.step}."
            log.warning("%s", failure)
            return RunError(failure)      # without the frames of the first, which hold the tensors
        try:
            checkpoints.prune(self.directory, self.keep, spared=spared)
        except RunError as error:
            log.warning("%s", error)      # this one is on disk all the same
        return None


def copied(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose tensors lie in host memory of their own, and which nothing changes any more."""
    return Checkpoint(
        checkpoint.step,
        _to_host(checkpoint.model),
        _to_host(checkpoint.optimizer),
        _to_host(checkpoint.ranks),
        json.loads(json.dumps(checkpoint.state)),
        json.loads(json.dumps(checkpoint.about)),
    )


def _to_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The memory layout is kept, which is the fastest copy; the writing thread puts it in order. From a GPU each copy
    # waits for itself: at several GB/s that is nothing between two checkpoints, and needs no pinned memory for good.
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
