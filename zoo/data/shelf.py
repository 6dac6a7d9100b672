"""The folder of decoded images: who may write, what is in use, what is removed to make room.

A file's lock (flock) tells that a process uses it and ends with the process, however that ends. Where locks do not
work, as on some network disks, at worst two processes make the same folder: a folder only ever appears whole.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from zoo.home import zoo_home

log = logging.getLogger("zoo")
LIMIT = "ZOO_IMAGES_GB"          # environment: decoded images kept in all, in GB; 0 keeps none
USUAL = 64.0                     # GB
SPARE = 1 << 30                  # bytes that stay free on the disk
DRAFT = ".draft-"                # how the folders begin that are being written
PAUSE = 0.1                      # seconds between two looks at a lock
LONG = 10.0                      # seconds that a process waits for another one without a word
MINUTE = 60.0                    # seconds


def place(key: str) -> Path:
    """Return the folder of decoded images with this key."""
    return zoo_home().expanduser() / "images" / key


def use(file: IO[bytes], folder: Path) -> None:
    """Mark a folder as used, by the lock of an open file in it, until the file is closed."""
    with suppress(OSError):
        _lock(file, shared=True)
    with suppress(OSError):
        os.utime(folder / "index.json")      # the time of its last use


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Let one process at a time make a folder; the others wait. Raises OSError where nothing can be written."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("wb") as file:
        speaks = time.monotonic() + LONG
        while not _lock(file, shared=False):
            if time.monotonic() > speaks:
                log.warning("%s: waiting for another process that decodes the same images.", name)
                speaks = float("inf")
            time.sleep(PAUSE)
        yield


@contextmanager
def draft(folder: Path) -> Iterator[Path]:
    """Give a new folder beside its place; what is left of it at the end is removed."""
    for left in folder.parent.glob(f"{DRAFT}*"):
        if not _used(left):
            remove(left)
    made = Path(tempfile.mkdtemp(prefix=DRAFT, dir=folder.parent))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def publish(made: Path, folder: Path) -> None:
    """Put a finished draft in its place, in that of a damaged one too."""
    made.chmod(0o755)
    with suppress(OSError):
        made.rename(folder)
        return
    remove(folder)
    with suppress(OSError):      # another process was faster
        made.rename(folder)


def remove(folder: Path) -> None:
    """Take a folder away at once, then delete it; processes that have its files open keep them."""
    with suppress(OSError):
        gone = Path(tempfile.mkdtemp(prefix=DRAFT, dir=folder.parent))
        folder.rename(gone / folder.name)
        shutil.rmtree(gone, ignore_errors=True)


def make_room(folder: Path, needed: int, name: str) -> None:
    """Remove the decoded images that were not used for longest until `needed` bytes fit.

    Raises:
        OSError: they do not fit; what others use is not removed.
    """
    most = limit()
    if needed > most:
        raise OSError(errno.EDQUOT, f"they take {_gb(needed)} of at most {_gb(most)}, which {LIMIT} can change")
    others = sorted(_caches(folder.parent), key=lambda cache: cache.used)
    while True:
        total, free = sum(cache.size for cache in others), shutil.disk_usage(folder.parent).free
        if total + needed <= most and free >= needed + SPARE:
            return
        oldest = next((cache for cache in others if not _used(cache.folder)), None)
        if oldest is None:
            what = f"they take {_gb(needed)}, {_gb(max(0, min(free - SPARE, most - total)))} is left"
            raise OSError(errno.ENOSPC, what)
        log.info("%s: removing decoded images %s to make room.", name, oldest.folder.name)
        others.remove(oldest)
        remove(oldest.folder)
        oldest.folder.with_suffix(".lock").unlink(missing_ok=True)


class Cache:
    """One folder of decoded images."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.size = (folder / "pixels").stat().st_size
        self.used = (folder / "index.json").stat().st_mtime


def _caches(home: Path) -> list[Cache]:
    found = []
    for folder in home.iterdir():
        if folder.is_dir() and not folder.name.startswith(DRAFT):
            with suppress(OSError):
                found.append(Cache(folder))
    return found


def _used(folder: Path) -> bool:
    """Return whether a living process has the folder's pixels open."""
    try:
        with (folder / "pixels").open("rb") as file:
            return not _lock(file, shared=False)
    except OSError:
        with suppress(OSError):              # of a draft that was begun just now they are not there yet
            return time.time() - folder.stat().st_mtime < MINUTE
        return False


def _lock(file: IO[bytes], *, shared: bool) -> bool:
    """Try to lock a file. Where there are no locks nobody is kept out."""
    if os.name == "nt":
        return True
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def limit() -> int:
    """Return the bytes that all decoded images together may take."""
    try:
        return int(float(os.environ.get(LIMIT, USUAL)) * 1e9)
    except (ValueError, OverflowError):
        return int(USUAL * 1e9)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
