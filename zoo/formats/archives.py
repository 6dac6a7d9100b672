"""torch's zip container: `data.pkl`, and one stored (never compressed) entry for each storage.

A strict reader of the few zip features that torch writes. Whatever two readers could understand differently is refused:
names that differ between an entry and the directory, gaps that hide one, anything before or behind the archive.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from zoo.errors import WeightsError

MOST_ENTRIES = 50_000
_BIG = 0xFFFFFFFF
_KNOWN_FLAGS = 0x808                # sizes behind the data, as torch's writer has them; names in UTF-8
_DESCRIBED = 0x8
_LARGEST_GAP = 24                   # bytes of a data descriptor


@dataclass(frozen=True)
class Entry:
    """A file of the archive, as its directory describes it."""

    raw: bytes                      # its name
    name: str
    flags: int
    crc: int
    size: int
    at: int                         # of its local header


def entries(data: memoryview) -> dict[str, memoryview]:
    """Return the content of every entry of a zip archive by name, without copying.

    Raises:
        WeightsError: it is no archive of the kind that torch writes, or damaged.
    """
    count, start, end = _directory(data)
    if count > MOST_ENTRIES:
        raise WeightsError(f"its archive has {count:,} entries; at most {MOST_ENTRIES:,} are read.")
    at, described = start, []
    for _ in range(count):
        entry, at = _described(data, at, end)
        described.append(entry)
    if at != end:
        raise WeightsError("its archive's directory is longer than its entries: the file is altered.")
    found: dict[str, memoryview] = {}
    behind = 0
    for entry in sorted(described, key=lambda each: each.at):
        if entry.name in found:
            raise WeightsError(f"its archive holds {entry.name!r} twice.")
        if not 0 <= entry.at - behind <= (_LARGEST_GAP if found else 0):
            raise WeightsError(f"something is hidden before {entry.name!r} in its archive: the file is altered.")
        found[entry.name], behind = _content(data[:start], entry)
    if not 0 <= start - behind <= _LARGEST_GAP:
        raise WeightsError("something is hidden behind the last entry of its archive: the file is altered.")
    return found


def _directory(data: memoryview) -> tuple[int, int, int]:
    """Return how many entries there are, and where the directory begins and ends."""
    at = len(data) - 22
    if at < 0 or bytes(data[at : at + 4]) != b"PK\5\6":
        raise WeightsError("its archive has no directory at its end: the file is cut short, or bytes were added.")
    disk, first, here, count, size, start, comment = struct.unpack("<4H2IH", data[at + 4 :])
    if at >= 76 and bytes(data[at - 20 : at - 16]) == b"PK\6\7":          # the record of large archives
        (record,) = struct.unpack("<Q", data[at - 12 : at - 4])
        if record != at - 76 or bytes(data[record : record + 4]) != b"PK\6\6":
            raise WeightsError("its archive's directory is malformed: the file is damaged.")
        disk, first, here, count, size, start = struct.unpack("<2I4Q", data[record + 16 : record + 56])
        at = record
    if disk or first or comment or here != count or start + size != at:
        raise WeightsError("its archive's directory is malformed: the file is damaged, or bytes were added.")
    return count, start, at


def _described(data: memoryview, at: int, end: int) -> tuple[Entry, int]:
    """Return the entry that the directory describes at a place, and the place behind it."""
    if at + 46 > end or bytes(data[at : at + 4]) != b"PK\1\2":
        raise WeightsError("its archive's directory is cut short.")
    # Behind the signature and two versions; times and attributes say nothing about the content.
    flags, method, crc, packed, size, name_length, extra_length, comment, disk, local = struct.unpack(
        "<2H4x3I4H6xI", data[at + 8 : at + 46]
    )
    behind = at + 46 + name_length + extra_length
    if behind > end:
        raise WeightsError("its archive's directory is cut short.")
    raw = bytes(data[at + 46 : at + 46 + name_length])
    name = _name(raw)
    if flags & 1:
        raise WeightsError(f"{name!r} in its archive is encrypted.")
    if method != 0:
        raise WeightsError(f"{name!r} in its archive is compressed; torch stores its entries as they are.")
    if flags & ~_KNOWN_FLAGS or comment or disk:
        raise WeightsError(f"{name!r} in its archive has flags that torch does not write: the file is altered.")
    sizes = _large(data[behind - extra_length : behind], (size, packed, local))
    if sizes[0] != sizes[1]:
        raise WeightsError(f"{name!r} in its archive has two sizes: the file is damaged.")
    return Entry(raw, name, flags, crc, sizes[0], sizes[2]), behind


def _large(extra: memoryview, sizes: tuple[int, ...]) -> list[int]:
    """Return sizes with those that do not fit 32 bits taken from the extra field."""
    wide: list[int] = []
    while len(extra) >= 4:
        kind, length = struct.unpack("<2H", extra[:4])
        if kind == 1:
            wide = list(struct.unpack(f"<{length // 8}Q", extra[4 : 4 + length // 8 * 8]))
        extra = extra[4 + length :]
    return [wide.pop(0) if size == _BIG and wide else size for size in sizes]


def _name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WeightsError("an entry of its archive has a name that is no text.") from error
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or len(name) > 500 or {"", ".", "..", "C:"} & set(parts):
        raise WeightsError(f"its archive holds an entry with the impossible name {name[:60]!r}.")
    return name


def _content(data: memoryview, entry: Entry) -> tuple[memoryview, int]:
    """Return an entry's content, and the place behind it; its local header must agree with the directory."""
    local = data[entry.at : entry.at + 30]
    if len(local) != 30 or bytes(local[:4]) != b"PK\3\4":
        raise WeightsError(f"{entry.name!r} is missing from its archive: the file is damaged.")
    flags, method, crc, packed, size, name_length, extra_length = struct.unpack("<2H4x3I2H", local[6:])
    begin = entry.at + 30 + name_length + extra_length
    if data[entry.at + 30 : entry.at + 30 + name_length] != entry.raw:
        raise WeightsError(f"{entry.name!r} has another name inside its archive: the file is altered.")
    promised = {entry.crc, 0} if flags & _DESCRIBED else {entry.crc}
    sizes = {entry.size, 0, _BIG} if flags & _DESCRIBED else {entry.size, *([_BIG] if entry.size >= _BIG else [])}
    if (flags, method) != (entry.flags, 0) or crc not in promised or not {packed, size} <= sizes:
        raise WeightsError(f"{entry.name!r} is described in two ways in its archive: the file is altered.")
    content = data[begin : begin + entry.size]
    if len(content) != entry.size:
        raise WeightsError(f"{entry.name!r} is cut short in its archive.")
    if zlib.crc32(content) != entry.crc:
        raise WeightsError(f"{entry.name!r} in its archive is damaged (its checksum differs): download the file again.")
    return content, begin + entry.size
