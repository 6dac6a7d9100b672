"""A model folder on disk: config.json, model.safetensors and manifest.json, written whole and read strictly.

Nothing in a folder is executed: config.json names an architecture and its settings, and tensors are safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zoo.errors import WeightsError

FILES = ("config.json", "model.safetensors")
DEEPEST = 32    # levels of a model's JSON
SCHEMA = 1      # of config.json; a newer one is refused
GOLDEN_SEED, GOLDEN_IMAGES = 0, 4
GOLDEN_PIXELS = 256      # above, one golden image is enough: large ones take their time on a CPU
_NAME = re.compile(r"[A-Za-z0-9_.]{1,300}")


class Parent(BaseModel):
    """What a delta is added to."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str = ""                  # as `zoo.load` takes it; "" where that is not known
    commit: str | None = None       # of a Hub repository
    sha256: str                     # of the tensors that are added to: `digest`


@dataclass(frozen=True)
class Checkpoint:
    """What a model folder holds, read and checked but not yet built."""

    architecture: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    origin: dict[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    critic: dict[str, Any] | None = None
    manifest: dict[str, Any] | None = None
    parent: Parent | None = None      # of a delta: what its tensors are added to, see `zoo.deltas`


class Written(BaseModel):
    """What config.json may say. It names an architecture, never code; unknown entries are refused."""

    model_config = ConfigDict(strict=True, extra="forbid")

    architecture: str
    config: dict[str, Any]
    schema_version: int = Field(SCHEMA, ge=1)
    zoo_version: str = ""
    origin: dict[str, Any] = {}
    absent: list[str] = []      # networks of the architecture that these weights lack
    critic: dict[str, Any] | None = None      # settings of what stands in for its discriminator: `zoo.projected`
    parent: Parent | None = None      # the tensors are a delta


def read(directory: str | Path, *, verify: bool = True) -> Checkpoint:
    """Read a model folder; nothing of it is executed.

    Raises:
        WeightsError: a file is missing, cut, altered, or holds names or values that no model has.
    """
    folder = Path(directory)
    if not os.path.isdir(folder):
        raise WeightsError(f"{folder} is no folder: give one that zoo.save, `zoo train` or the Hub made.")
    for name in FILES:
        if not (folder / name).is_file():      # a pipe or a device would never end
            raise WeightsError(f"{folder / name} is missing or no regular file: the model folder is incomplete.")
    config = read_json(folder / "config.json")
    try:
        written = Written.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "whole"
        raise WeightsError(f"{folder / 'config.json'} is not a zoo model's: {place}: {first['msg']}.") from error
    if written.schema_version > SCHEMA:
        raise WeightsError(
            f"{folder / 'config.json'} has schema version {written.schema_version}, this zoo reads up to {SCHEMA}: "
            "update genzoo."
        )
    manifest = None
    if os.path.lexists(folder / "manifest.json"):
        manifest = read_json(folder / "manifest.json")
        if verify:
            _verify(folder, manifest)
    tensors = read_tensors(folder / "model.safetensors")
    absent = tuple(written.absent)
    return Checkpoint(
        written.architecture, written.config, tensors, written.origin, absent, written.critic, manifest, written.parent
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, names and values checked, floating ones as float32.

    Raises:
        WeightsError: naming the file and the fault.
    """
    tensors = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 -- a safetensors handle is no mapping
                if not _NAME.fullmatch(name):
                    raise WeightsError(f"{path.name}: {name[:60]!r} is no tensor name (letters, digits, '_' and '.').")
                tensor = file.get_tensor(name)
                if tensor.is_floating_point():
                    tensor = tensor.float()
                    if not bool(torch.isfinite(tensor).all()):
                        raise WeightsError(f"{path.name}: {name} holds values that are not finite.")
                tensors[name] = tensor
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        cause = str(error)[:150]
        raise WeightsError(f"{path} is no readable safetensors file ({cause}): download it again.") from error
    return tensors


def write_manifest(folder: Path, golden: str, images: int) -> None:
    """Write manifest.json: sha256 and size of every other file, and the hash of the golden sample, if there is one."""
    files = {
        path.name: {"sha256": sha256(path), "size": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != "manifest.json" and not path.name.startswith(".")
    }
    body: dict[str, Any] = {"files": files}
    if golden:
        body["golden"] = {"seed": GOLDEN_SEED, "images": images, "sha256": golden}
    (folder / "manifest.json").write_text(json.dumps(body, indent=1) + "\n")


def _verify(folder: Path, manifest: Any) -> None:
    try:
        promised = {name: manifest["files"][name]["sha256"] for name in FILES}
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{folder / 'manifest.json'} is not a manifest ({error}): fetch the model again.") from error
    for name, digest in promised.items():
        if sha256(folder / name) != digest:
            raise WeightsError(f"{folder / name} is damaged or altered (sha256 differs): fetch the model again.")


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of named tensors: of each, in order of name, its name, type, shape and bytes.

    It depends on the numbers alone, so that the same weights from different files have the same digest.
    """
    whole = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def place(content: bytes, path: Path) -> None:
    """Write a file under a passing name, then give it its own, so that no reader finds half of it."""
    descriptor, passing = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(passing, 0o644)
        os.replace(passing, path)
    except BaseException:
        os.unlink(passing)
        raise


def replaced(folder: Path, fill: Callable[[Path], object]) -> None:
    """Have a folder filled beside its place and then put there, so that no reader finds half of it."""
    draft, old = folder.with_name(f".{folder.name}-draft"), folder.with_name(f".{folder.name}-old")
    for left in (draft, old):      # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        fill(draft)
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def read_json(path: Path) -> Any:
    """Return what a model's JSON file holds.

    Raises:
        WeightsError: it is no regular file, too large, nested too deeply, or no JSON.
    """
    try:
        if not path.is_file():
            raise WeightsError(f"{path} is no regular file: the model folder is damaged.")
        if path.stat().st_size > 2**20:
            raise WeightsError(f"{path} is {path.stat().st_size} bytes; a model's JSON has at most 1 MiB.")
        found = json.loads(path.read_text(encoding="utf-8"))
        if _deeper(found, DEEPEST):
            raise WeightsError(f"{path} is nested more than {DEEPEST} levels deep; no model's JSON is.")
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()      # what could not be written is not read
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} cannot be read as JSON ({type(error).__name__}).") from error
    return found


def _deeper(value: Any, levels: int) -> bool:
    inside = [value]
    for _ in range(levels):
        holders = [each for each in inside if isinstance(each, dict | list)]
        inside = [inner for each in holders for inner in (each.values() if isinstance(each, dict) else each)]
    return any(isinstance(each, dict | list) for each in inside)
