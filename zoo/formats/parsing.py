"""One file's bytes to what it holds, as inert data. Which kind of file it is, its content says, never its name."""

from __future__ import annotations

import re
from typing import Any

from zoo.errors import WeightsError
from zoo.formats.archives import entries
from zoo.formats.headers import header
from zoo.formats.inert import Context
from zoo.formats.legacy import MAGIC, element, identify, legacy
from zoo.formats.pickles import Budget, Machine
from zoo.formats.storages import NAMES, Storage, Strided, contiguous

_ENTRY = re.compile(r"data\.pkl|data/\w+|version|byteorder|\.(format_version|storage_alignment|data/serialization_id)")
DEEPEST_FILE = 2         # files inside files: NVIDIA's pickles hold one torch file for each tensor

# How other things begin that lie where a checkpoint should.
_OTHERS = (
    (b"<", "is a web page"),
    (b"version https://git-lfs", "is the pointer that Git LFS leaves instead of the file"),
    (b"\x1f\x8b", "is compressed with gzip: unpack it first"),
    (b"\x89HDF\r\n", "is a HDF5 file, which is not read"),
    (b"\x93NUMPY", "is a numpy array and no checkpoint"),
)


def parse(data: memoryview, budget: Budget | None = None, depth: int = 0) -> Any:
    """Return what a checkpoint holds: dicts, lists, tuples, text, numbers, and the classes of `inert` and `storages`.

    Raises:
        WeightsError: it is of no kind that is read, damaged, or holds anything but data. The message names no file.
    """
    if depth > DEEPEST_FILE:
        raise WeightsError(f"it holds files inside files more than {DEEPEST_FILE} levels deep.")
    budget = budget or Budget()

    def nested(inside: memoryview) -> Any:
        return parse(inside, budget, depth + 1)

    head = bytes(data[:512])
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return _archive(data, budget, nested)
    if head[8:9] in (b"{", b" ") and not any(head[4:8]):
        return _safetensors(data)
    if MAGIC in head[:32]:
        return legacy(data, budget, nested)
    if head[:1] == b"\x80":
        machine = Machine(data, Context(None, nested), budget)
        found = machine.run()
        if machine.position != len(data):
            raise WeightsError(f"{len(data) - machine.position:,} bytes follow its pickle: something is hidden there.")
        return found
    raise WeightsError(_what(head))


def _what(head: bytes) -> str:
    if not head:
        return "it is empty: download it again."
    if head[257:262] == b"ustar":
        return "it is a tar file, of torch before 0.1.10: load it with an old torch and save it again."
    for beginning, what in _OTHERS:
        if head.lstrip()[: len(beginning)] == beginning:
            return f"it {what}."
    return "it is no torch or safetensors file, and no pickle of protocol 2 or newer: the download may be broken."


def _archive(data: memoryview, budget: Budget, nested: Any) -> Any:
    held = entries(data)
    pickles = [name for name in held if name.split("/")[-1] == "data.pkl"]
    if any(re.fullmatch(r"[^/]+/(constants\.pkl|code/.*)", name) for name in held):
        raise WeightsError("it is a TorchScript program, which is code: export the state dict of the model instead.")
    if len(pickles) != 1:
        raise WeightsError(f"its archive holds {len(pickles)} data.pkl instead of one: it is no torch file.")
    root = pickles[0].removesuffix("data.pkl")
    for name in held:
        if not (name.startswith(root) and _ENTRY.fullmatch(name.removeprefix(root))):
            raise WeightsError(f"its archive holds {name!r}, which torch does not write: the file is altered.")
    if bytes(held.get(f"{root}byteorder", b"little")) != b"little":
        raise WeightsError("its numbers are in big-endian order, which is not read.")

    def persistent(identifier: object) -> Storage:
        dtype, key, count = identify(identifier)
        content = held.get(f"{root}data/{key}")
        nbytes = count * element(dtype)
        if content is None or len(content) != nbytes:
            there = "no bytes" if content is None else f"{len(content):,} bytes"
            raise WeightsError(f"its archive holds {there} for storage {key!r} of {nbytes:,}: the file is incomplete.")
        return Storage(dtype, nbytes, content)

    machine = Machine(held[pickles[0]], Context(persistent, nested), budget)
    found = machine.run()
    if machine.position != len(machine.data):
        raise WeightsError("bytes follow its pickle: something is hidden there.")
    return found


def _safetensors(data: memoryview) -> dict[str, Strided]:
    records, start = header(data, len(data))
    body, found = data[start:], {}
    for name, record in records.items():
        if name != "__metadata__":
            begin, end = record["data_offsets"]
            dtype, shape = NAMES[record["dtype"]], tuple(record["shape"])
            found[name] = Strided(Storage(dtype, end - begin, body[begin:end]), dtype, 0, shape, contiguous(shape))
    if not found:
        raise WeightsError("it holds no tensor.")
    return found
