"""Decoded images on disk: made once for a set and a size, mapped into memory by every process that reads them.

``ZOO_HOME/images/KEY/`` holds ``pixels`` (uint8 [n, C, H, W], then a crc32 of each image) and ``index.json``. KEY
covers names, sizes and times of the source's files, the size of the images and the version of the decoder, so a set
that changed has another one. Each image is checked when a process reads it for the first time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features
from pydantic import BaseModel, ConfigDict, ValidationError

from zoo.data import shelf
from zoo.data.decode import DECODER
from zoo.data.order import Places
from zoo.data.reader import Failure, Progress, Reader
from zoo.data.sources import Pixels

log = logging.getLogger("zoo")
VERSION = 1
READ_AHEAD = 1 << 30     # bytes: what takes no more is read from the disk at once
SUM = 4                  # bytes of a checksum
THREADS = 16             # that decode at most, where nobody says how many


class Damaged(Exception):
    """A folder does not hold what its index promises."""


class Index(BaseModel):
    """What index.json says; `seal` is a sha256 over all the rest."""

    model_config = ConfigDict(strict=True, extra="forbid")

    version: int
    name: str                                # of the set, for people who look
    shape: tuple[int, int, int, int]         # of the pixels
    failed: list[Failure]
    fingerprint: str
    sums: int                                # crc32 of the checksums
    seal: str = ""

    def sealed(self) -> str:
        plain = self.model_dump(exclude={"seal"})
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class Kept:
    """Decoded images in a folder of the cache, and which of the source's images they are."""

    def __init__(self, folder: Path, total: int):
        try:
            index = Index.model_validate_json((folder / "index.json").read_bytes())
            self._file = (folder / "pixels").open("rb")
        except ValidationError as error:
            raise Damaged("index.json is no index") from error
        except OSError as error:
            raise Damaged(f"{Path(error.filename).name}: {error.strerror}") from error
        n, *shape = index.shape
        if index.seal != index.sealed() or index.version != VERSION or n + len(index.failed) != total:
            raise Damaged("index.json was altered")
        self._folder, self._name, self._size = folder, index.name, n * (int(np.prod(shape)) + SUM)
        if not self._whole():
            raise Damaged("pixels are not all there")
        self.fingerprint, self.failures = index.fingerprint, index.failed
        self.kept: Places = np.delete(np.arange(total), [failure.index for failure in index.failed])
        mapped = np.frombuffer(_mapped(self._file) if n else b"", dtype=np.uint8)
        end = self._size - n * SUM
        self._pixels, self._sums = mapped[:end].reshape(n, *shape), mapped[end:].view(np.uint32)
        if zlib.crc32(self._sums.data) != index.sums:
            raise Damaged("checksums were altered")
        self._checked: NDArray[np.bool_] = np.zeros(n, dtype=bool)
        shelf.use(self._file, folder)

    def take(self, rows: Places) -> tuple[Pixels, Places]:
        """Return images [N, C, H, W], and which of the N are damaged."""
        if not self._whole():                    # cut while it is mapped: touching what is gone would end the process
            self._forget("it was cut while in use")
            return np.zeros((len(rows), *self._pixels.shape[1:]), dtype=np.uint8), np.arange(len(rows))
        pixels = np.take(self._pixels, rows, axis=0)
        fresh = np.flatnonzero(~self._checked[rows])
        bad = [place for place in fresh.tolist() if zlib.crc32(pixels[place]) != self._sums[rows[place]]]
        self._checked[rows[fresh]] = True
        if bad:
            self._checked[rows[bad]] = False
            self._forget(f"{len(bad)} images differ from their checksums")
        return pixels, np.array(bad, dtype=np.int64)

    def _whole(self) -> bool:
        return os.fstat(self._file.fileno()).st_size == self._size

    def _forget(self, why: str) -> None:
        if (self._folder / "index.json").exists():
            log.warning("%s: decoded images in %s are damaged (%s): decoded again.", self._name, self._folder, why)
            shelf.remove(self._folder)           # what is mapped stays; the next start makes it anew


def _mapped(file: IO[bytes]) -> mmap.mmap:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_WILLNEED") and len(mapped) <= READ_AHEAD:
        mapped.madvise(mmap.MADV_WILLNEED)       # soon all of it is wanted, in no order that a disk likes
    return mapped


def decoded(reader: Reader, progress: Progress | None) -> Kept | None:
    """Return the decoded images of a source from the cache, made now where it has none.

    Returns None, after one warning that says why, where they cannot be kept: no room, or no right to write.
    """
    if not shelf.limit():
        return None
    folder = shelf.place(_key(reader))
    try:
        found = _read(folder, reader, aloud=False)
        if found is None:
            with shelf.alone(folder, reader.source.name):
                found = _read(folder, reader, aloud=True) or _make(folder, reader, progress)
    except OSError as error:
        cause = error.strerror or str(error)
        text = "%s: decoded images cannot be kept in %s (%s); set ZOO_HOME to a folder with room to save time."
        log.warning(text, reader.source.name, folder.parent, cause)
        return None
    reader.skip(found.failures)
    return found


def _key(reader: Reader) -> str:
    codecs = [PIL.__version__, *(features.version(name) for name in ("libjpeg_turbo", "webp", "zlib"))]
    names = hashlib.sha256("\0".join(reader.source.names).encode()).hexdigest()
    facts = [VERSION, DECODER, codecs, names, reader.source.stamp(), reader.resolution, reader.channels]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:40]


def _read(folder: Path, reader: Reader, *, aloud: bool) -> Kept | None:
    """Return what the folder holds if it is whole and nothing that failed then can be read now."""
    if not folder.is_dir():
        return None
    try:
        found = Kept(folder, len(reader.source.names))
    except Damaged as error:
        if aloud:
            log.warning("%s: decoded images in %s are damaged (%s): made again.", reader.source.name, folder, error)
        return None
    passing = [failure.index for failure in found.failures if failure.passing]
    retry = Reader(reader.source, resolution=reader.resolution, channels=reader.channels, workers=0)
    return None if any(retry.image(index) is not None for index in passing) else found


def _make(folder: Path, reader: Reader, progress: Progress | None) -> Kept:
    """Decode everything into a folder that appears whole or not at all."""
    n, shape = len(reader.source.names), (reader.channels, reader.resolution, reader.resolution)
    shelf.make_room(folder, n * (int(np.prod(shape)) + SUM), reader.source.name)
    # Its lock is held until it has its place: others clear away drafts that nobody holds.
    with shelf.draft(folder) as draft, (draft / "pixels").open("wb") as file:
        shelf.use(file, draft)
        sums = _write(file, reader, progress)
        file.flush()
        index = Index(
            version=VERSION,
            name=reader.source.name,
            shape=(len(sums), *shape),
            failed=[reader.failures[index] for index in sorted(reader.failures)],
            fingerprint=reader.source.fingerprint(),
            sums=zlib.crc32(sums.data),
        )
        index.seal = index.sealed()
        (draft / "index.json").write_text(index.model_dump_json(indent=1) + "\n", encoding="utf-8")
        shelf.publish(draft, folder)
    try:
        return Kept(folder, n)
    except Damaged as error:
        raise OSError(str(error)) from error


def _write(file: IO[bytes], reader: Reader, progress: Progress | None) -> NDArray[np.uint32]:
    sums = []
    threads = reader.workers or min(os.cpu_count() or 1, THREADS)
    for _, image in reader.everything(progress, threads=threads):
        if image is not None:
            row = np.ascontiguousarray(image.transpose(2, 0, 1))
            file.write(row.data)
            sums.append(zlib.crc32(row.data))
    checksums = np.array(sums, dtype=np.uint32)
    file.write(checksums.data)
    return checksums


