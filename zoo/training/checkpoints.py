"""Checkpoints without pickle: written beside, made durable, then renamed into place; old ones pruned afterwards.

``RUN/checkpoints/00001234/`` (the step) holds ``model.safetensors`` (all networks, averages and buffers),
``optimizer.safetensors``, ``ranks.safetensors`` (what each process holds by itself), ``state.json``, and
``manifest.json`` with the sha256 and size of each of them and of itself.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EDQUOT, ENOSPC
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import RunError
from zoo.training import tensorfile
from zoo.training.manifest import LARGEST, NAME, Manifest
from zoo.training.tensorfile import non_finite

__all__ = ["Checkpoint", "drop_after", "newest", "non_finite", "prepare", "prune", "read", "steps", "write"]

log = logging.getLogger("zoo")
TENSORS = ("model.safetensors", "optimizer.safetensors", "ranks.safetensors")
STATE = "state.json"
SPARE = 1 << 20      # bytes that a checkpoint leaves free: the log and the samples of the run need some too

# A checkpoint that is being replaced by another of the same step keeps a name of its own until that one is in place.
_PUBLISHED = re.compile(r"(?:\.replaced-)?(\d{8,18})", re.ASCII)
_LEFTOVER = re.compile(r"\.(?:draft|old)-\d+", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on as if it had never stopped."""

    step: int
    model: dict[str, Tensor]                                     # all networks, averages, buffers
    optimizer: dict[str, Tensor]
    ranks: dict[str, Tensor]                                     # "RANK/KIND/NAME", such as "0/rng/torch"
    state: dict[str, Any]                                        # JSON: kimg, seconds, scalers, ...
    about: dict[str, Any] = field(default_factory=dict)          # JSON, told in the manifest: kimg, versions, ...

    def non_finite(self) -> str | None:
        """Return the name of the first tensor that holds NaN or infinity; of `ranks`, buffers alone are judged."""
        buffers = {name: tensor for name, tensor in self.ranks.items() if "/buffer/" in name}
        return non_finite({**self.model, **self.optimizer, **buffers})


def prepare(directory: Path) -> None:
    """Make the folder of a run's checkpoints, durably, and clear away what a crashed run left half written.

    Raises:
        RunError: it cannot be made or written to.
    """
    try:
        _make(directory)
        probe = directory / ".draft-0"      # whether it may be written to is known by writing
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise _refused(directory, "Checkpoints", error) from error


def write(
    directory: Path,
    checkpoint: Checkpoint | int,
    model: Mapping[str, Tensor] | None = None,
    optimizer: Mapping[str, Tensor] | None = None,
    state: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint so that a crash at any instant leaves either all of it or none, and return its folder.

    Raises:
        RunError: a value is not finite, there is no room, or the folder cannot be written to. Older ones stay.
    """
    if isinstance(checkpoint, int):
        checkpoint = Checkpoint(checkpoint, dict(model or {}), dict(optimizer or {}), {}, dict(state or {}))
    bad = checkpoint.non_finite()
    if bad is not None:
        raise RunError(
            f"The checkpoint of step {checkpoint.step} is not written: {bad} holds values that are not finite. "
            "Resume from the one before with a lower lr, or set clip_norm."
        )
    final, draft = directory / _name(checkpoint.step), directory / f".draft-{_name(checkpoint.step)}"
    try:
        _make(directory)
        _check_room(directory, checkpoint)
        draft.mkdir()
        _fill(draft, checkpoint)
        _publish(draft, final)
    except OSError as error:
        raise _refused(directory, f"The checkpoint of step {checkpoint.step}", error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)      # by now renamed, unless something went wrong
    return final


def prune(directory: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, each first renamed out of the way, and what a crashed run left."""
    _clear(directory)
    for path in steps(directory)[:-keep]:
        _remove(path)


def drop_after(directory: Path, step: int) -> None:
    """Remove the checkpoints of later steps: damaged ones that a resumed run passed over and will write again."""
    _clear(directory)
    for path in steps(directory):
        if step_of(path) > step:
            _remove(path)


def steps(directory: Path) -> list[Path]:
    """Return the checkpoints, oldest step first: all that has the name of one, whole or not.

    Raises:
        RunError: the directory is there but cannot be listed.
    """
    found: dict[int, Path] = {}
    for name in sorted(_listed(directory)):      # a dot comes before digits: what is in place counts
        match = _PUBLISHED.fullmatch(name)
        if match and _name(int(match[1])) == match[1]:
            found[int(match[1])] = directory / name
    return [found[step] for step in sorted(found)]


def step_of(path: Path) -> int:
    """Return the step that a checkpoint folder is named after."""
    match = _PUBLISHED.fullmatch(path.name)
    if match is None:
        raise RunError(f"{path} is not named after a step: checkpoints are called {_name(1234)} or alike.")
    return int(match[1])


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
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise RunError(f"Checkpoint {path.name} is damaged ({_cause(error)}).") from error


def _cause(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{Path(str(error.filename)).name}: {error.strerror}"
    return str(error) or type(error).__name__


def _name(step: int) -> str:
    return f"{step:08d}"


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(
            f"{directory} cannot be read as a folder of checkpoints ({error.strerror}): make it readable, or start "
            "another run."
        ) from error


def _fill(draft: Path, checkpoint: Checkpoint) -> None:
    parts = (checkpoint.model, checkpoint.optimizer, checkpoint.ranks)
    digests = {name: tensorfile.write(draft / name, tensors) for name, tensors in zip(TENSORS, parts)}
    digests[STATE] = tensorfile.write_durably(draft / STATE, [_text(checkpoint.state)])
    manifest = Manifest.of(draft, checkpoint.step, digests, checkpoint.about)
    tensorfile.write_durably(draft / NAME, [manifest.text()])
    _sync(draft)


def _text(state: Mapping[str, Any]) -> bytes:
    return (json.dumps(state, indent=1, allow_nan=False) + "\n").encode()


def _publish(draft: Path, final: Path) -> None:
    replaced = final.with_name(f".replaced-{final.name}")
    if os.path.lexists(final):      # the same step once more: after a rollback, or the last save of a stopped run
        _delete(replaced)
        final.rename(replaced)
    draft.rename(final)
    _sync(final.parent)
    _delete(replaced)


def _check_room(directory: Path, checkpoint: Checkpoint) -> None:
    parts = (checkpoint.model, checkpoint.optimizer, checkpoint.ranks)
    needed = sum(tensorfile.size(part) for part in parts) + len(_text(checkpoint.state)) + LARGEST + SPARE
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise RunError(
            f"No room for the checkpoint of step {checkpoint.step}: {directory} has {free / 2**20:.1f} MiB free, "
            f"{(needed - free) / 2**20:.1f} MiB more are needed; older checkpoints stay. Free some space."
        )


def _refused(directory: Path, what: str, error: OSError) -> RunError:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return RunError(f"{what}: {directory} is a file or lies in one, but must be a folder: choose another.")
    if error.errno in (ENOSPC, EDQUOT):
        return RunError(f"{what} cannot be written: {directory} ran full; older checkpoints stay. Free some space.")
    return RunError(
        f"{what} cannot be written to {directory} ({error.strerror}); older checkpoints stay. Make it writable, or "
        "choose another folder."
    )


def _make(directory: Path) -> None:
    if not directory.is_dir():
        directory.mkdir(parents=True)
        _sync(directory.parent)
    _clear(directory)


def _clear(directory: Path) -> None:
    for name in _listed(directory):
        replaced = name.startswith(".replaced-") and os.path.lexists(directory / name.removeprefix(".replaced-"))
        if replaced or _LEFTOVER.fullmatch(name):
            _delete(directory / name)


def _remove(path: Path) -> None:
    old = path.with_name(f".old-{step_of(path):08d}")
    _delete(old)
    path.rename(old)
    _delete(old)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
