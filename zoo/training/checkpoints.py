"""Checkpoints without pickle: written beside, made durable, then renamed into place; old ones pruned afterwards.

``RUN/checkpoints/00001234/`` (the step) holds ``model.safetensors`` (all networks, averages and buffers),
``optimizer.safetensors``, ``state.json`` and ``manifest.json`` with the sha256 and size of each of them.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.errors import RunError
from zoo.storage import sha256

log = logging.getLogger("zoo")
FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, read back and verified."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


def write(
    directory: Path, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Path:
    """Write the checkpoint of a step so that a crash at any instant leaves either all of it or none."""
    directory.mkdir(parents=True, exist_ok=True)
    final, draft = directory / f"{step:08d}", directory / f".draft-{step:08d}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.items()}, draft / FILES[0])
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in optimizer.items()}, draft / FILES[1])
    (draft / FILES[2]).write_text(json.dumps(dict(state), indent=1))
    manifest = {name: {"sha256": sha256(draft / name), "size": (draft / name).stat().st_size} for name in FILES}
    (draft / "manifest.json").write_text(json.dumps({"step": step, "files": manifest}, indent=1))
    for name in (*FILES, "manifest.json"):
        _sync(draft / name)
    _sync(draft)
    if final.exists():      # a resumed run may reach a step whose checkpoint was found damaged
        _remove(final)
    draft.rename(final)
    _sync(directory)
    return final


def prune(directory: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, each first renamed out of the way, and drafts of a crashed run."""
    for path in steps(directory)[:-keep]:
        _remove(path)
    for leftover in [*directory.glob(".draft-*"), *directory.glob(".old-*")]:
        shutil.rmtree(leftover, ignore_errors=True)


def drop_after(directory: Path, step: int) -> None:
    """Remove the checkpoints of later steps: damaged ones that a resumed run passed over and will write again."""
    for path in steps(directory):
        if int(path.name) > step:
            _remove(path)


def steps(directory: Path) -> list[Path]:
    """Return the checkpoint folders, oldest step first."""
    return sorted(path for path in directory.glob("[0-9]*") if path.is_dir() and path.name.isdecimal())


def newest(directory: Path) -> Checkpoint | None:
    """Return the newest checkpoint that is whole, with one warning line for each damaged one passed over."""
    for path in reversed(steps(directory)):
        try:
            return read(path)
        except RunError as error:
            log.warning("%s Trying the one before.", error)
    return None


def read(path: Path) -> Checkpoint:
    """Read and verify one checkpoint folder.

    Raises:
        RunError: a file is missing, cut or altered.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        for name in FILES:
            if sha256(path / name) != manifest["files"][name]["sha256"]:
                raise RunError(f"Checkpoint {path.name}: {name} is damaged (its sha256 differs from the manifest).")
        state = json.loads((path / FILES[2]).read_text())
        return Checkpoint(manifest["step"], load_file(path / FILES[0]), load_file(path / FILES[1]), state)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"Checkpoint {path.name} is damaged ({type(error).__name__}: {error}).") from error


def _remove(path: Path) -> None:
    old = path.with_name(f".old-{path.name}")
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    shutil.rmtree(old)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
