"""Whether files fetched from the Hub are what their hashes say: the Hub's own hash of each, and the manifest's."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path

_KINDS = {40: "sha1", 64: "sha256"}            # length of a cached blob's name -> what the name is of its content


def damaged(directory: Path) -> list[str]:
    """Return the names of a snapshot's files whose content is not what the Hub's hash or the manifest says.

    The manifest does not bind the card: its publisher may go on writing it on the Hub.
    """
    names = [path.relative_to(directory).as_posix() for path in sorted(directory.rglob("*")) if path.is_file()]
    bad = [name for name in names if not _as_named(directory / name)]
    if "manifest.json" in bad or "manifest.json" not in names:
        return bad
    promised = _promised(directory / "manifest.json")
    return [
        name
        for name in names
        if name in bad
        or (name in promised and name != "README.md" and promised[name] != digest(directory / name, "sha256"))
    ]


def discard(directory: Path, bad: list[str]) -> None:
    """Remove a snapshot and the content of its bad files; what is sound stays in the cache's store."""
    for path in [path for path in directory.rglob("*") if path.is_file() or path.is_symlink()]:
        if path.relative_to(directory).as_posix() in bad:
            with suppress(OSError):
                (path.parent / path.readlink()).unlink()
        path.unlink(missing_ok=True)


def digest(content: Path | bytes, kind: str) -> str:
    """Return the hex digest of a content; "sha1" is git's: of the content behind a header with its size."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    state = hashlib.new(kind, b"blob %d\0" % size if kind == "sha1" else b"")
    if isinstance(content, bytes):
        state.update(content)
    else:
        with content.open("rb") as file:
            while piece := file.read(1 << 20):
                state.update(piece)
    return state.hexdigest()


def _as_named(path: Path) -> bool:
    # The cache names a blob after the Hub's ETag: sha256 of a large file, git's hash of a small one. Only one step is
    # followed: behind the blob may be a store that several repositories share and that has names of its own.
    if not path.is_symlink():      # a disk without links: the cache keeps plain files there
        return True
    name = path.readlink().name
    kind = _KINDS.get(len(name)) if re.fullmatch(r"[0-9a-f]+", name) else None
    return kind is None or digest(path, kind) == name


def _promised(manifest: Path) -> dict[str, str]:
    # What is malformed in a manifest is for zoo.weights to refuse.
    with suppress(ValueError, AttributeError, TypeError, KeyError, RecursionError):
        if manifest.stat().st_size <= 1 << 20:
            files = json.loads(manifest.read_bytes())["files"]
            return {str(name): str(facts["sha256"]) for name, facts in files.items()}
    return {}
