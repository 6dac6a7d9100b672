"""Images in tar files, such as WebDataset shards: found once, then read in place, so any order costs the same."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from zoo.data import notes
from zoo.data.sources import LARGEST_MEMBER, Entry, Files, Listing, is_image, printable, written
from zoo.errors import DataError

HEADER = 1 << 20                  # bytes: a header of a tar that claims more is refused
NOTE = 1 << 20                    # bytes: the largest .json of a sample that is read for its label
MOST = 100_000                    # shards that a pattern may stand for
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
LABELS = ("cls", "class", "label")      # entries of a sample's .json that may hold its label
HIDDEN = re.compile(r"\.(?!\.$)|__MACOSX$")
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")

Place = tuple[str, int, int]      # path of the shard, first byte, bytes


class Members(BaseModel):
    """What one tar holds: images with the first byte and size of each, and the labels of samples."""

    model_config = ConfigDict(strict=True, extra="forbid")

    images: list[tuple[str, int, int]]
    labels: dict[str, str]                   # sample (path up to the first dot of its name) -> label
    refused: list[tuple[str, str]]
    ignored: int


class Careful(io.FileIO):
    """A tar that is read header by header: whoever wants much at once was told so by a hostile header."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= HEADER:
            raise tarfile.ReadError("one of its headers is too large")
        return super().read(size)


def open_shards(paths: Sequence[Path], name: str, root: Path) -> Files:
    """List the images of tar files, in the order of their names. Raises DataError.

    A sample's label is what its ``.cls`` holds, or the entry cls, class or label of its ``.json``; where no image has
    one, folders in the tars are classes as in an image folder.
    """
    listing = Listing(opener=_open, depth=1)
    for path in paths:
        if path.name.lower().endswith(PACKED):
            raise DataError(f"{printable(str(path))} is compressed, so nothing in it can be found: make it a .tar.")
        _list(path, printable(os.path.relpath(path, root)), listing)
    return Files(name, listing)


def matching(pattern: str) -> list[Path]:
    """Return the paths that a pattern such as ``shards/{00..99}.tar`` or ``{train,more}.tar`` stands for.

    Raises:
        DataError: there are too many, or one of them is missing.
    """
    spelled = list(islice(_expanded(pattern), MOST + 1))
    if len(spelled) > MOST:
        raise DataError(f"{printable(pattern)} stands for more than {MOST} files; name fewer.")
    paths = [Path(each) for each in spelled]
    for path in paths:
        if not path.is_file():
            raise DataError(f"{printable(pattern)}: {printable(str(path))} is missing: get it, or change the pattern.")
    return paths


def _expanded(pattern: str) -> Iterator[str]:
    found = BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    ends = RANGE.fullmatch(found[1])
    if ends:
        width = len(ends[1]) if ends[1].startswith("0") else 0
        choices: Iterator[str] = (f"{number:0{width}}" for number in range(int(ends[1]), int(ends[2]) + 1))
    else:
        choices = iter(found[1].split(","))
    for choice in choices:
        yield from _expanded(pattern[: found.start()] + choice + pattern[found.end() :])


def _open(place: Place) -> io.BytesIO:
    path, first, size = place
    with open(path, "rb") as file:
        file.seek(first)
        content = file.read(size)
    if len(content) < size:
        raise OSError("cut short")
    return io.BytesIO(content)


def _list(path: Path, shown: str, listing: Listing) -> None:
    stat = path.stat()
    stamp = written(stat)
    members = notes.remembered(Members, ("tar", str(path.resolve()), stat.st_size, stamp), lambda: _members(path))
    listing.ignored += members.ignored
    listing.refused.extend((f"{shown}/{name}".rstrip("/"), why) for name, why in members.refused)
    exact = {_sample(name) for name, *_ in members.images if name.rpartition("/")[2].count(".") == 1}
    for name, first, size in members.images:
        sample = _sample(name)
        if sample in exact and name.rpartition("/")[2].count(".") > 1:      # 0001.mask.png beside 0001.jpg
            listing.ignored += 1
            continue
        parts, place = (shown, *name.split("/")), (str(path), first, size)
        listing.entries.append(Entry(parts, size, place, f"{stamp} {first}", members.labels.get(sample)))


def _members(path: Path) -> Members:
    """Walk the headers of a tar; nothing is unpacked, and of all contents only labels are read."""
    found = Members(images=[], labels={}, refused=[], ignored=0)
    with Careful(path) as file:
        end = os.fstat(file.fileno()).st_size
        try:
            with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()      # type: ignore[attr-defined]      # else a million of them stay in memory
                    _note(member, file, end, found)
                if (why := _stopped(file, archive.offset, end)) is not None:
                    found.refused.append(("", why))
        except (tarfile.TarError, OSError, ValueError, RecursionError, OverflowError) as error:
            why = str(error) if not isinstance(error, RecursionError) else "headers within headers"
            found.refused.append(("", f"damaged after {len(found.images)} images: {printable(why)}"))
    return found


def _note(member: tarfile.TarInfo, file: Careful, end: int, found: Members) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    name = printable("/".join(parts))
    if member.isdir() or any(HIDDEN.match(part) for part in parts):
        return
    if is_image(name):
        why = _unfit(member, parts, end)
        if why is None:
            found.images.append((name, member.offset_data, member.size))
        else:
            found.refused.append((name, why))
    elif member.isreg() and name.endswith((".cls", ".json")) and member.size <= NOTE:
        label = _label(os.pread(file.fileno(), member.size, member.offset_data), name)
        if label:
            found.labels[_sample(name)] = label
    else:
        found.ignored += 1


def _unfit(member: tarfile.TarInfo, parts: list[str], end: int) -> str | None:
    """Return why a member is not read as an image, or None."""
    reasons = {
        "a link": member.issym() or member.islnk(),
        "not a regular file": not member.isreg(),
        "sparse": member.issparse(),
        "its name leaves the archive": member.name.startswith("/") or ".." in parts,
        f"takes more than {LARGEST_MEMBER >> 20} MB": member.size > LARGEST_MEMBER,
        "cut short": member.offset_data + member.size > end,
    }
    return next((why for why, true in reasons.items() if true), None)


def _label(content: bytes, name: str) -> str:
    """Return what a sample's .cls or .json says about its class, or nothing."""
    if name.endswith(".cls"):
        return printable(content[:100].decode("utf-8", "replace").strip())
    told: Any = None
    with suppress(ValueError, RecursionError):
        told = json.loads(content)
    if not isinstance(told, dict):
        return ""
    values = (told.get(name) for name in LABELS)
    return next((printable(str(value))[:100] for value in values if isinstance(value, int | str)), "")


def _sample(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _stopped(file: Careful, offset: int, end: int) -> str | None:
    """Return what is wrong where the walk ended, or None: a whole tar ends with blocks of zeros."""
    block = os.pread(file.fileno(), tarfile.BLOCKSIZE, offset)
    if block and not block.strip(b"\0"):
        return None
    return "cut short: the end mark is missing" if offset >= end or not block else f"damaged at byte {offset}"
