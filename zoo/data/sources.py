"""Where images come from: a folder, a zip of one. A source lists its images and opens them one by one."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.data.decode import EXTENSIONS, decode
from zoo.errors import DataError

Pixels = NDArray[np.uint8]
LARGEST_MEMBER = 256 << 20        # bytes: a zip entry that unpacks to more is refused
DIGESTED = 1 << 30                # bytes: up to this much encoded data is part of a fingerprint


class Source(Protocol):
    """A list of images. `image` raises whatever went wrong; the image set names the file and goes on."""

    name: str
    names: tuple[str, ...]                       # one printable name per image
    labels: NDArray[np.int64] | None             # [n], None without classes
    classes: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]         # (name, reason) of what was not even listed

    def image(self, index: int, *, resolution: int, channels: int) -> Pixels:
        """Return [resolution, resolution, channels] uint8."""

    def open(self, index: int) -> IO[bytes]:
        """Return the image as it is stored: a file in one of the formats that are read. The caller closes it."""

    def fingerprint(self) -> str:
        """Return a sha256 that changes when the set does."""


@dataclass(frozen=True)
class Entry:
    """One image file of a folder or zip."""

    parts: tuple[str, ...]                       # printable path below the root
    size: int                                    # bytes
    place: str | zipfile.ZipInfo


@dataclass
class Listing:
    """What a walk found."""

    entries: list[Entry]
    refused: list[tuple[str, str]]
    ignored: int = 0                             # files with other extensions


class Files:
    """Images in files: a folder or a zip. Class subfolders become labels when there are at least two."""

    def __init__(self, name: str, listing: Listing, archive: zipfile.ZipFile | None = None):
        if not listing.entries:
            raise DataError(_nothing(name, listing))
        entries = sorted(listing.entries, key=lambda entry: entry.parts)
        self.name = name
        self.names = tuple("/".join(entry.parts) for entry in entries)
        self.classes, self.labels = classify([entry.parts for entry in entries])
        self.refused = tuple(listing.refused)
        self._entries, self._archive = entries, archive

    def image(self, index: int, *, resolution: int, channels: int) -> Pixels:
        with self.open(index) as file:
            return decode(file, resolution=resolution, channels=channels)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        whole = sum(entry.size for entry in self._entries) <= DIGESTED
        for index, entry in enumerate(self._entries):
            digest.update(f"{self.names[index]}\0{entry.size}\0".encode())
            if whole:
                digest.update(self._content(index))
        return digest.hexdigest()

    def _content(self, index: int) -> bytes:
        try:
            with self.open(index) as file:
                return hashlib.file_digest(file, "sha256").digest()
        except Exception:  # unreadable counts as its own content: the set is another once it can be read
            return b"unreadable"

    def open(self, index: int) -> io.BufferedReader | io.BytesIO:
        place = self._entries[index].place
        if isinstance(place, str):
            return open(place, "rb")
        assert self._archive is not None
        return io.BytesIO(self._archive.read(place))


def classify(paths: list[tuple[str, ...]]) -> tuple[tuple[str, ...], NDArray[np.int64] | None]:
    """Return the class names, sorted, and each path's label; no classes unless there are two and none is outside."""
    while len({path[0] for path in paths}) == 1 and all(len(path) > 1 for path in paths):
        paths = [path[1:] for path in paths]     # a folder that holds everything is packaging, not a class
    if any(len(path) == 1 for path in paths):
        return (), None
    classes = sorted({path[0] for path in paths})
    label = {name: index for index, name in enumerate(classes)}
    return tuple(classes), np.array([label[path[0]] for path in paths], dtype=np.int64)


def printable(name: str) -> str:
    """Return the name with line breaks, control characters and bytes that are not UTF-8 written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def open_folder(path: Path) -> Files:
    """List a folder, deep, following links; hidden files are passed over, other extensions are counted."""
    listing = Listing([], [])
    _walk(os.fspath(path), listing)
    return Files(printable(os.fspath(path)), listing)


def _walk(root: str, listing: Listing) -> None:
    waiting: list[tuple[str, tuple[str, ...]]] = [(root, ())]
    seen: set[tuple[int, int]] = set()
    while waiting:
        folder, parts = waiting.pop()
        try:
            here = os.stat(folder)
            with os.scandir(folder) as found:
                children = sorted((child.name for child in found if not child.name.startswith(".")), reverse=True)
        except OSError as error:
            listing.refused.append(("/".join(parts) or printable(folder), error.strerror or str(error)))
            continue
        if (here.st_dev, here.st_ino) in seen:   # a link to a folder that was walked already: a loop, or twice the same
            continue
        seen.add((here.st_dev, here.st_ino))
        for child in children:
            path, shown = os.path.join(folder, child), (*parts, printable(child))
            if _look(path, child, shown, listing):
                waiting.append((path, shown))


def _look(path: str, name: str, shown: tuple[str, ...], listing: Listing) -> bool:
    """List one file, or return True for a folder to walk."""
    try:
        found = os.stat(path)
    except OSError as error:                     # a broken link, a link to itself
        if _is_image(name):
            listing.refused.append(("/".join(shown), error.strerror or str(error)))
        return False
    if stat.S_ISDIR(found.st_mode):
        return True
    if not _is_image(name):
        listing.ignored += 1
    elif stat.S_ISREG(found.st_mode):
        listing.entries.append(Entry(shown, found.st_size, path))
    else:                                        # a pipe or a device would block
        listing.refused.append(("/".join(shown), "not a regular file"))
    return False


def open_zip(path: Path) -> Files:
    """List a zip; its members are read in place and never unpacked to disk."""
    name = printable(os.fspath(path))
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"{name} cannot be read as a zip ({error}); pack the image folder again.") from error
    listing = Listing([], [])
    for member, parts in _members(archive):
        shown = "/".join(parts)
        if not _is_image(parts[-1]):
            listing.ignored += 1
        elif member.flag_bits & 0x1:
            listing.refused.append((shown, "encrypted"))
        elif member.file_size > LARGEST_MEMBER:
            listing.refused.append((shown, f"unpacks to {member.file_size >> 20} MB, above {LARGEST_MEMBER >> 20} MB"))
        else:
            listing.entries.append(Entry(parts, member.file_size, member))
    return Files(name, listing, archive)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    for member in archive.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        parts = tuple(printable(part) for part in path.parts if part != "/")
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if parts and not hidden and not member.is_dir():
            yield member, parts


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _nothing(name: str, listing: Listing) -> str:
    kinds = " ".join(EXTENSIONS)
    if listing.refused:
        first, reason = listing.refused[0]
        more = f" ({len(listing.refused)} such files)" if len(listing.refused) > 1 else ""
        return f"no image in {name} can be read: {first}: {reason}{more}."
    if listing.ignored:
        return f"no images in {name}: none of its {listing.ignored} files ends in one of {kinds}."
    return f"{name} is empty; put images in it ({kinds}), or in one subfolder per class."
