"""Decodes the images of a source at one size, and remembers those that could not be."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from zoo.data.decode import reason
from zoo.data.sources import Pixels, Source
from zoo.errors import DataError

log = logging.getLogger("zoo")
PATIENCE = 100           # unreadable images in a row before reading on demand gives up
BLOCK = 1024             # images queued for the threads at a time
SILENT = 30.0            # seconds of decoding without a word
SETTLED = (errno.ENOENT, errno.ELOOP)      # faults of a file that stay until its folder is listed anew

Progress = Callable[[int, int], None]      # (images done, images in all)
T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """Why an image of a source could not be read, and whether it might be read another time."""

    index: int
    reason: str
    passing: bool        # no fault of what the file holds: a right that is missing, a disk that did not answer


class Reader:
    """Images of a source as uint8 [H, W, C]. `failures` holds, by index, those that could not be read so far."""

    def __init__(self, source: Source, *, resolution: int, channels: int, workers: int):
        self.source, self.resolution, self.channels, self.workers = source, resolution, channels, workers
        self.failures: dict[int, Failure] = {}
        self.watching = False                  # set once a set is open: a failure is then reported at once
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="zoo-data") if workers else None
        self._lock = threading.Lock()

    def image(self, index: int) -> Pixels | None:
        """Return one image, or None where it cannot be read. Raises DataError where the whole source is gone."""
        try:
            return self.source.image(index, resolution=self.resolution, channels=self.channels)
        except DataError:
            raise
        except Exception as error:  # whatever a broken file makes Pillow raise: named, and passed over
            passing = isinstance(error, MemoryError | OSError) and getattr(error, "errno", 0) not in (None, *SETTLED)
            self.skip([Failure(index, reason(error), passing)])
            return None

    def readable(self, index: int) -> tuple[int, Pixels]:
        """Return the first image from there on that can be read, and its index."""
        n = len(self.source.names)
        for step in range(min(PATIENCE, n)):
            decoded = self.image((index + step) % n)
            if decoded is not None:
                return (index + step) % n, decoded
        raise DataError(self.all_failed())

    def readables(self, indices: Iterable[int]) -> list[tuple[int, Pixels]]:
        """Return `readable` of each index, decoded by the workers."""
        return list(self._pool.map(self.readable, indices) if self._pool else map(self.readable, indices))

    def everything(self, progress: Progress | None, *, threads: int) -> Iterator[tuple[int, Pixels | None]]:
        """Yield every index in order with its image, decoded by so many threads; 0: by the caller's.

        Where nobody asks for `progress`, long work still gives a sign of life.
        """
        n, speaks = len(self.source.names), time.monotonic() + SILENT
        pool = ThreadPoolExecutor(threads, thread_name_prefix="zoo-decode") if threads else None
        try:
            for first in range(0, n, BLOCK):
                block = range(first, min(first + BLOCK, n))
                yield from zip(block, pool.map(self.image, block) if pool else map(self.image, block))
                if progress is not None:
                    progress(block.stop, n)
                elif time.monotonic() > speaks:
                    log.warning("%s: %d of %d images are decoded.", self.source.name, block.stop, n)
                    speaks = time.monotonic() + SILENT
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    def skip(self, failures: Iterable[Failure]) -> None:
        """Remember failures; once the set is open, the first of each image is reported."""
        for failure in failures:
            with self._lock:
                first_time = self.failures.setdefault(failure.index, failure) is failure
            if first_time and self.watching:
                name, why = self.source.names[failure.index], failure.reason
                text = "%s: %s cannot be read (%s); another image takes its place."
                log.warning(text, self.source.name, name, why)

    def skipped(self) -> dict[str, str]:
        """Return the name of everything that could not be read, even listed, with the reason."""
        read = {self.source.names[index]: failure.reason for index, failure in self.failures.items()}
        return {**dict(self.source.refused), **read}

    def all_failed(self) -> str:
        skipped = self.skipped()
        name = min(skipped)
        count = f"{len(skipped)} files failed, such as {name}: {skipped[name]}"
        return f"no image in {self.source.name} can be read; {count}."
