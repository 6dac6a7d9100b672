"""torch's container before 1.6: five pickles in a row (magic number, protocol, system, object, keys), then storages.

NVIDIA's pickles hold one such file for every tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zoo.errors import WeightsError
from zoo.formats.inert import Context, Global
from zoo.formats.pickles import Budget, Machine
from zoo.formats.storages import DTYPES, Storage

MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."      # of the first pickle: a LONG1 of ten bytes
PROTOCOL = 1001


def identify(identifier: object) -> tuple[str, str, int]:
    """Return dtype ("untyped" for raw bytes), key and number of elements of a persistent identifier of torch.

    Raises:
        WeightsError: it does not stand for a storage.
    """
    match identifier:
        case ("storage", Global(storage=dtype), str(key), _, int(count), *_) if dtype and count >= 0:
            return dtype, key, count
    raise WeightsError("its pickle refers to something outside of it that is no storage of numbers.")


def element(dtype: str) -> int:
    """Return the bytes of an element of a storage."""
    return DTYPES[dtype][1] if dtype in DTYPES else 1


def legacy(data: memoryview, budget: Budget, nested: Callable[[memoryview], object]) -> Any:
    """Return what such a file holds.

    Raises:
        WeightsError: it is damaged, or holds anything but data.
    """
    storages: dict[str, Storage] = {}
    parts: dict[tuple[str, str], Storage] = {}

    def persistent(identifier: object) -> Storage | Global:
        match identifier:
            case ("module", Global() as kind, *_):               # a class, with its source text, which is left alone
                return kind
        dtype, key, count = identify(identifier)
        assert isinstance(identifier, tuple)
        whole = storages.setdefault(key, Storage(dtype, count * element(dtype)))
        if (whole.dtype, whole.nbytes) != (dtype, count * element(dtype)):
            raise WeightsError(f"its storage {key!r} is described in two ways: the file is altered.")
        match identifier[5:]:
            case () | (None,):
                return whole
            case ((str(part), int(offset), int(size)),) if min(offset, size) >= 0 and offset + size <= count:
                made = Storage(dtype, size * element(dtype), None, whole, offset * element(dtype))
                return parts.setdefault((key, part), made)
        raise WeightsError(f"a part of its storage {key!r} lies outside of it.")

    plain = Context(None, nested)
    found, at = [], 0
    for context in (plain, plain, plain, Context(persistent, nested), plain):
        machine = Machine(data, context, budget, at)
        found.append(machine.run())
        at = machine.position
    _, protocol, system, content, keys = found
    if protocol != PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("it is of another version of torch's old container, or of a big-endian machine.")
    if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise WeightsError("its list of storages does not match its tensors: the file is altered.")
    _fill(data[at:], [(key, storages[key]) for key in keys])
    return content


def _fill(data: memoryview, storages: list[tuple[str, Storage]]) -> None:
    """Give each storage its bytes: a count of elements in eight bytes, then the elements."""
    at = 0
    for key, storage in storages:
        count = int.from_bytes(data[at : at + 8], "little")
        content = data[at + 8 : at + 8 + storage.nbytes]
        promised = count * element(storage.dtype)
        if storage.data is not None or not promised == storage.nbytes == len(content):
            raise WeightsError(f"the bytes of its storage {key!r} are cut short, or not as many as its tensors say.")
        storage.data = content
        at += 8 + storage.nbytes
    if at != len(data):
        raise WeightsError(f"{len(data) - at:,} bytes follow its storages: something is hidden there.")
