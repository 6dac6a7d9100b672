"""A zip of images, read in place."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from zoo.data.sources import LARGEST_MEMBER, Entry, Files, Listing, is_image, printable, written
from zoo.errors import DataError


def open_zip(path: Path) -> Files:
    """List a zip; its members are read in place and never unpacked to disk."""
    name = printable(os.fspath(path))
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"{name} cannot be read as a zip ({error}); pack the image folder again.") from error
    listing = Listing(opener=lambda member: io.BytesIO(archive.read(member)))
    whole = written(os.stat(path))
    for member, parts in _members(archive):
        shown = "/".join(parts)
        if not is_image(parts[-1]):
            listing.ignored += 1
        elif member.flag_bits & 0x1:
            listing.refused.append((shown, "encrypted"))
        elif member.file_size > LARGEST_MEMBER:
            listing.refused.append((shown, f"unpacks to {member.file_size >> 20} MB, above {LARGEST_MEMBER >> 20} MB"))
        else:
            listing.entries.append(Entry(parts, member.file_size, member, f"{member.CRC} {whole}"))
    return Files(name, listing)


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    for member in archive.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        parts = tuple(printable(part) for part in path.parts if part != "/")
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if parts and not hidden and not member.is_dir():
            yield member, parts
