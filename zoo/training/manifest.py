"""What a checkpoint says of itself: its step, what made it, and the sha256 and size of each file, this one included."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

NAME = "manifest.json"
LARGEST = 1 << 18      # bytes of a manifest


class File(BaseModel):
    """One file: how long it is and what it hashes to."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Manifest(BaseModel):
    """manifest.json without its own hash; entries beside the named ones tell what made the checkpoint."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    step: int = Field(ge=0)
    files: dict[str, File]

    @classmethod
    def of(cls, folder: Path, step: int, digests: Mapping[str, str], about: Mapping[str, Any]) -> Manifest:
        """Return the manifest of a folder's files, given the hash of each."""
        files = {name: File(sha256=digest, size=(folder / name).stat().st_size) for name, digest in digests.items()}
        return cls(step=step, files=files, **about)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Return what a folder's manifest says.

        Raises:
            OSError, ValueError: it is missing, no regular file, or not as it was written.
        """
        with opened(folder / NAME) as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise ValueError(f"{NAME} is longer than {LARGEST} bytes")
        try:
            found = json.loads(raw)
            said = found.pop("sha256", None) if isinstance(found, dict) else None
            # A value that is still well formed after a bit flipped, such as a digit, is noticed too.
            if said is None or _text(found) != raw:
                raise ValueError("it is not as it was written")
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{NAME}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{NAME}: {error}") from error

    @property
    def about(self) -> dict[str, Any]:
        """What made the checkpoint: kimg, hash of the configuration, versions, processes."""
        return dict(self.model_extra or {})

    def text(self) -> bytes:
        """Return the file's content, its own hash last."""
        return _text(self.model_dump())

    def verify(self, folder: Path, names: Iterable[str]) -> None:
        """Compare files with what is said of them.

        Raises:
            OSError, ValueError: naming the file that is missing, no regular file, cut or altered.
        """
        for name in names:
            promised = self.files.get(name)
            if promised is None:
                raise ValueError(f"{NAME} does not name {name}")
            with opened(folder / name) as file:
                size = os.fstat(file.fileno()).st_size
                if size != promised.size:
                    raise ValueError(f"{name} has {size} bytes instead of {promised.size}")
                if hashlib.file_digest(file, "sha256").hexdigest() != promised.sha256:
                    raise ValueError(f"{name}: its sha256 differs from the manifest")


def opened(path: Path) -> BufferedReader:
    """Open a regular file for reading; a link is not followed, a pipe is not waited for.

    Raises:
        OSError, ValueError: it is missing, not readable, or something else than a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise ValueError(f"{path.name} is missing") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path.name} is no regular file")
    return os.fdopen(descriptor, "rb")


def _text(content: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()
    return (json.dumps({**content, "sha256": digest}, indent=1, allow_nan=False) + "\n").encode()
