"""numpy's arrays, dtypes and scalars as their pickles describe them: numbers and truth values, lengths checked."""

from __future__ import annotations

import math
import re
import struct
from array import array

from zoo.errors import WeightsError
from zoo.formats.inert import Array, Context, Global, Kind
from zoo.formats.storages import DTYPES, WORDS, Storage, Strided, contiguous, strided

_LETTERS = {
    "b1": "bool", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16",
    "u4": "uint32", "u8": "uint64", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64",
}  # fmt: skip


# dtype -> struct's code for one of them; a complex number has none.
_CODES = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H",
    "uint32": "I", "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip
NAMES = tuple(_LETTERS.values())


def dtype(context: Context, code: object, align: object = False, copy: object = False) -> Kind:
    """Return the dtype of a code; its byte order comes as its state."""
    if isinstance(code, Global):
        code = code.name.removeprefix("numpy.")
    if isinstance(code, str) and re.fullmatch(r"[US][0-9]{1,5}", code, re.ASCII):
        return Kind(code[0], int(code[1:]) * (4 if code[0] == "U" else 1))
    name = _LETTERS.get(code, code) if isinstance(code, str) else None
    if name not in DTYPES:
        raise WeightsError(f"an array of dtype {str(code)[:40]!r} cannot be read: only numbers and truth values.")
    return Kind(name, DTYPES[name][1])


def byte_order(kind: Kind, state: object) -> None:
    """Take a dtype's state: (version, byte order, sub-array, names, fields, size, alignment, flags)."""
    if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
        raise WeightsError("an array's dtype is malformed.")
    if any(part is not None for part in state[2:5]):
        raise WeightsError("an array of records cannot be read: only numbers and truth values.")
    kind.swapped = state[1] == ">"


def _numbers(kind: object, data: object, count: int) -> memoryview:
    """Return `count` numbers' bytes, little-endian."""
    if not isinstance(kind, Kind) or kind.dtype not in DTYPES:
        raise WeightsError("an array of text or of unknown dtype cannot be read: only numbers and truth values.")
    if isinstance(data, str):                          # bytes that Python 2 wrote
        data = memoryview(data.encode("latin-1"))
    if not isinstance(data, memoryview) or len(data) != count * kind.size:
        raise WeightsError(f"an array of {count} x {kind.size} bytes holds another number of bytes.")
    if kind.swapped and kind.size > 1:
        part = kind.size // 2 if kind.dtype == "complex64" else kind.size
        words = array(WORDS[part], bytes(data))
        words.byteswap()
        return memoryview(words).cast("B")
    return data


def _shaped(kind: object, data: object, shape: object, fortran: object) -> Strided:
    if not isinstance(shape, tuple) or any(type(size) is not int or size < 0 for size in shape) or len(shape) > 16:
        raise WeightsError("an array has an impossible shape.")
    numbers = _numbers(kind, data, math.prod(shape))
    assert isinstance(kind, Kind)
    strides = tuple(reversed(contiguous(shape[::-1]))) if fortran else contiguous(shape)
    return strided(Storage(kind.dtype, len(numbers), numbers), kind.dtype, 0, shape, strides)


def content(state: object) -> Strided:
    """Return what an array's state says: ([version], shape, dtype, whether in Fortran's order, bytes)."""
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise WeightsError("an array is malformed.")
    shape, kind, fortran, data = state[-4:]
    return _shaped(kind, data, shape, fortran)


def reconstruct(context: Context, kind: object, shape: object, code: object) -> Array:
    """Return an array whose content comes as its state."""
    if not isinstance(kind, Global) or kind.name != "numpy.ndarray":
        raise WeightsError("an array of a class of its own cannot be read.")
    return Array()


def from_buffer(context: Context, data: object, kind: object, shape: object, order: object) -> Array:
    """Return an array as protocol 5 writes it."""
    return Array(_shaped(kind, data, shape, order == "F"))


def scalar(context: Context, kind: object, data: object) -> object:
    """Return a number, truth value or text, as Python's own."""
    if isinstance(kind, Kind) and kind.dtype in ("U", "S") and isinstance(data, memoryview) and len(data) == kind.size:
        wide = f"{'>' if kind.swapped else '<'}{kind.size // 4}I"
        text = "".join(map(chr, data if kind.dtype == "S" else struct.unpack(wide, data))).rstrip("\0")
        text.encode()                                  # half a character is malformed
        return text
    if not isinstance(kind, Kind) or kind.dtype not in _CODES:
        raise WeightsError("a scalar of this dtype cannot be read.")
    return struct.unpack(f"<{_CODES[kind.dtype]}", _numbers(kind, data, 1))[0]
