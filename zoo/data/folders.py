"""A folder of images, walked deep."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from zoo.data.shards import open_shards
from zoo.data.sources import Entry, Files, Listing, is_image, printable, written


def open_folder(path: Path) -> Files:
    """List a folder, deep, following links; hidden files are passed over, other extensions are counted.

    A folder without images but with tar files is one of shards.
    """
    listing = Listing(opener=_open)
    shards: list[str] = []
    _walk(os.fspath(path), listing, shards)
    name = printable(os.fspath(path))
    if shards and not listing.entries:
        return open_shards([Path(shard) for shard in sorted(shards)], name, path)
    listing.refused.extend((printable(shard), "a tar beside image files; put it elsewhere") for shard in shards)
    return Files(name, listing)


def _walk(root: str, listing: Listing, shards: list[str]) -> None:
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
            if child.lower().endswith(".tar") and os.path.isfile(path):
                shards.append(path)
            elif _look(path, child, shown, listing):
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
