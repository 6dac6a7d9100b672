"""Where images come from: a source lists its images and opens them one by one."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zoo.data.decode import EXTENSIONS, decode
from zoo.errors import DataError

Pixels = NDArray[np.uint8]
Classes = tuple[tuple[str, ...], NDArray[np.int64] | None]      # names of the classes, and the label of each image
LARGEST_MEMBER = 256 << 20        # bytes: an entry of a zip or tar that unpacks to more is refused
DIGITS = 5                        # of a class number
DIGESTED = 1 << 30                # bytes: up to this much encoded data is part of a fingerprint


class Source(Protocol):
    """A list of images. `image` raises whatever went wrong; the image set names the file and goes on.

    Only a DataError ends the work: the whole source is gone.
    """

    name: str
    labels: NDArray[np.int64] | None             # [n], None without classes
    classes: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]         # (name, reason) of what was not even listed
    encoded: int                                 # bytes that the images take as they are stored
    groups: NDArray[np.int64] | None             # rows that are only fetched together; None: any order costs the same

    @property
    def names(self) -> Sequence[str]:
        """Return one printable name per image."""

    def image(self, index: int, *, resolution: int, channels: int) -> Pixels:
        """Return [resolution, resolution, channels] uint8."""

    def open(self, index: int) -> IO[bytes]:
        """Return the image as it is stored: a file in one of the formats that are read. The caller closes it."""

    def expect(self, indices: Sequence[int] | NDArray[np.int64]) -> None:
        """Hear which images will be wanted soon."""

    def fingerprint(self) -> str:
        """Return a sha256 that changes when the set does."""

    def stamp(self) -> str:
        """Return a sha256 that changes when an image may have changed, without reading any: cheap, and suspicious."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image file of a folder, zip or tar."""

    parts: tuple[str, ...]                       # printable path below the root
    size: int                                    # bytes
    place: Any                                   # what `Listing.opener` takes
    stamp: str                                   # times or checksum: another one when the file was written anew
    label: str | None = None                     # where something else than its folder says so


@dataclass
class Listing:
    """What a walk found, and how an entry's place is opened."""

    opener: Callable[[Any], io.BufferedReader | io.BytesIO]
    entries: list[Entry] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    ignored: int = 0                             # files with other extensions
    depth: int = 0                               # leading parts of a path that are no classes


class Files:
    """Images in files. Class subfolders become labels when there are at least two."""

    groups: NDArray[np.int64] | None = None

    def __init__(self, name: str, listing: Listing):
        if not listing.entries:
            raise DataError(_nothing(name, listing))
        entries = sorted(listing.entries, key=lambda entry: entry.parts)
        self.name = name
        self.names = tuple("/".join(entry.parts) for entry in entries)
        told = [entry.label for entry in entries if entry.label is not None]
        if told:
            self.classes, self.labels = named(told) if len(told) == len(entries) else ((), None)
        else:
            self.classes, self.labels = classify([entry.parts[listing.depth :] for entry in entries])
        self.refused = tuple(listing.refused)
        self.encoded = sum(entry.size for entry in entries)
        self._entries, self._opener = entries, listing.opener

    def image(self, index: int, *, resolution: int, channels: int) -> Pixels:
        with self.open(index) as file:
            return decode(file, resolution=resolution, channels=channels)

    def open(self, index: int) -> io.BufferedReader | io.BytesIO:
        return self._opener(self._entries[index].place)

    def expect(self, indices: Sequence[int] | NDArray[np.int64]) -> None:
        """Hear which images will be wanted soon: the operating system reads ahead well enough."""

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        whole = self.encoded <= DIGESTED
        for index, entry in enumerate(self._entries):
            digest.update(f"{self.names[index]}\0{entry.size}\0".encode())
            if whole:
                digest.update(self._content(index))
        return digest.hexdigest()

    def stamp(self) -> str:
        digest = hashlib.sha256()
        for name, entry in zip(self.names, self._entries):
            digest.update(f"{name}\0{entry.size}\0{entry.stamp}\0".encode())
        return digest.hexdigest()

    def _content(self, index: int) -> bytes:
        try:
            with self.open(index) as file:
                return hashlib.file_digest(file, "sha256").digest()
        except Exception:  # unreadable counts as its own content: the set is another once it can be read
            return b"unreadable"


def named(labels: Sequence[str]) -> Classes:
    """Return the classes of images whose labels are written beside them: numbers stand for themselves, names sorted."""
    if all(label.isascii() and label.isdigit() and len(label) <= DIGITS for label in labels):
        numbers = np.array([int(label) for label in labels], dtype=np.int64)
        classes = tuple(str(number) for number in range(int(numbers.max()) + 1))
    else:
        classes = tuple(sorted(set(labels)))
        place = {name: index for index, name in enumerate(classes)}
        numbers = np.array([place[label] for label in labels], dtype=np.int64)
    return (classes, numbers) if len(classes) > 1 else ((), None)


def classify(paths: list[tuple[str, ...]]) -> Classes:
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
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def written(found: os.stat_result) -> str:
    """Return when a file was written. Its times can be set back, that of its inode (the second) cannot."""
    return f"{found.st_mtime_ns} {found.st_ctime_ns}"


def is_image(name: str) -> bool:
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
