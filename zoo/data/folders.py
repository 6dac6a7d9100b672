"""A folder of images, walked deep."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from zoo.data.sources import Entry, Files, Listing, is_image, printable


def open_folder(path: Path) -> Files:
    """List a folder, deep, following links; hidden files are passed over, other extensions are counted."""
    listing = Listing(opener=_open)
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
        if is_image(name):
            listing.refused.append(("/".join(shown), error.strerror or str(error)))
        return False
    if stat.S_ISDIR(found.st_mode):
        return True
    if not is_image(name):
        listing.ignored += 1
    elif stat.S_ISREG(found.st_mode):
        listing.entries.append(Entry(shown, found.st_size, path, written(found)))
    else:                                        # a pipe or a device would block
        listing.refused.append(("/".join(shown), "not a regular file"))
    return False


def _open(path: str) -> io.BufferedReader:
    return open(path, "rb")


def written(found: os.stat_result) -> str:
    """Return when a file was written. Its times can be set back, that of its inode (the second) cannot."""
    return f"{found.st_mtime_ns} {found.st_ctime_ns}"
