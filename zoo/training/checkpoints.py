"""Checkpoints without pickle: written beside, made durable, then renamed into place; old ones pruned afterwards.

``RUN/checkpoints/00001234/`` (the step) holds ``model.safetensors`` (all networks, averages and buffers),
``optimizer.safetensors``, ``ranks.safetensors`` (what each process holds by itself), ``state.json``, and
``manifest.json`` with the sha256 and size of each of them and the sha256 of itself.
"""

from __future__ import annotations

import json
import logging
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import RunError
from zoo.training import tensorfile
from zoo.training.directory import draft_of, drop_after, make, prepare, prune, publish, refused, step_of, steps, sync
from zoo.training.manifest import LARGEST, NAME, Manifest
from zoo.training.tensorfile import non_finite

__all__ = ["Checkpoint", "drop_after", "newest", "non_finite", "prepare", "prune", "read", "step_of", "steps", "write"]

log = logging.getLogger("zoo")
TENSORS = ("model.safetensors", "optimizer.safetensors", "ranks.safetensors")
STATE = "state.json"
SPARE = 1 << 20      # bytes that a checkpoint leaves free: the log and the samples of the run need some too


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on as if it had never stopped."""

    step: int
    model: dict[str, Tensor]                                # all networks, averages, buffers
    optimizer: dict[str, Tensor]
    ranks: dict[str, Tensor]                                # "RANK/KIND/NAME", such as "0/rng/torch"
    state: dict[str, Any]                                   # JSON: kimg, seconds, scalers, ...
    about: dict[str, Any] = field(default_factory=dict)     # JSON, told in the manifest: kimg, versions, ...

    def non_finite(self) -> str | None:
        """Return the name of the first tensor that holds NaN or infinity; of `ranks`, buffers alone are judged."""
        buffers = {name: tensor for name, tensor in self.ranks.items() if "/buffer/" in name}
        return non_finite(self.model) or non_finite(self.optimizer) or non_finite(buffers)


def write(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint so that a crash at any instant leaves either all of it or none, and return its folder.

    Raises:
        RunError: a value is not finite, there is no room, or the folder cannot be written to. Older ones stay.
    """
    what = f"The checkpoint of step {checkpoint.step}"
    bad = checkpoint.non_finite()
    if bad is not None:
        raise RunError(
            f"{what} is not written: {bad} holds values that are not finite. Resume from the one before with a lower "
            "lr, or set clip_norm."
        )
    draft = draft_of(directory, checkpoint.step)
    try:
        make(directory)
        _check_room(directory, checkpoint, what)
        draft.mkdir()
        _fill(draft, checkpoint)
        return publish(draft, checkpoint.step)
    except OSError as error:
        raise refused(directory, what, error) from error
    except ValueError as error:
        raise RunError(f"{what} is not written: {error}.") from error      # a number in its JSON is not finite
    finally:
        shutil.rmtree(draft, ignore_errors=True)      # by now renamed, unless something went wrong


def newest(directory: Path) -> Checkpoint | None:
    """Return the checkpoint of the last step that is whole, with one warning line for each damaged one passed over.

    Raises:
        RunError: the directory is there but cannot be listed.
    """
    for path in reversed(steps(directory)):
        try:
            return read(path)
        except RunError as error:
            log.warning("%s Trying the one before.", error)
    return None


def read(path: Path) -> Checkpoint:
    """Read and verify one checkpoint folder; nothing of it is executed.

    Raises:
        RunError: a file is missing, cut, altered, or no file.
    """
    step = step_of(path)
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise ValueError("it is no folder")
        manifest = Manifest.read(path)
        if manifest.step != step:
            raise ValueError(f"{NAME} is of step {manifest.step}")
        manifest.verify(path, (*TENSORS, STATE))
        state = json.loads((path / STATE).read_bytes())
        if not isinstance(state, dict):
            raise ValueError(f"{STATE} holds {type(state).__name__} instead of settings")
        model, optimizer, ranks = (load_file(path / name) for name in TENSORS)
        return Checkpoint(step, model, optimizer, ranks, state, manifest.about)
    except OSError as error:
        raise _damaged(path, f"{Path(str(error.filename)).name}: {error.strerror}") from error
    except (ValueError, RecursionError, SafetensorError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, cause: str) -> RunError:
    return RunError(f"Checkpoint {path.name} is damaged ({cause}).")


def _fill(draft: Path, checkpoint: Checkpoint) -> None:
    digests = {name: tensorfile.write(draft / name, part) for name, part in zip(TENSORS, _parts(checkpoint))}
    digests[STATE] = tensorfile.write_durably(draft / STATE, [_text(checkpoint.state)])
    manifest = Manifest.of(draft, checkpoint.step, digests, checkpoint.about)
    tensorfile.write_durably(draft / NAME, [manifest.text()])
    sync(draft)


def _check_room(directory: Path, checkpoint: Checkpoint, what: str) -> None:
    size = sum(tensorfile.size(part) for part in _parts(checkpoint)) + len(_text(checkpoint.state))
    free = shutil.disk_usage(directory).free
    missing = size + LARGEST + SPARE - free
    if missing > 0:
        raise RunError(
            f"{what} finds no room: {directory} has {free / 2**20:.1f} MiB free, {missing / 2**20:.1f} MiB more are "
            "needed; older checkpoints stay. Free some space."
        )


def _parts(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], ...]:
    return checkpoint.model, checkpoint.optimizer, checkpoint.ranks


def _text(state: Mapping[str, Any]) -> bytes:
    return (json.dumps(state, indent=1, allow_nan=False) + "\n").encode()
