"""Tensors as a file describes them: storages of raw bytes and the strided views into them, checked before any copy.

Neither torch nor numpy here: what reads runs in a process of its own for each file, which starts in a fifth of the
time without them. A dtype is a name of safetensors and a size.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from zoo.errors import WeightsError

# torch's name -> (name in safetensors, bytes of an element)
DTYPES: dict[str, tuple[str, int]] = {
    "float64": ("F64", 8), "float32": ("F32", 4), "float16": ("F16", 2), "bfloat16": ("BF16", 2),
    "int64": ("I64", 8), "int32": ("I32", 4), "int16": ("I16", 2), "int8": ("I8", 1),
    "uint64": ("U64", 8), "uint32": ("U32", 4), "uint16": ("U16", 2), "uint8": ("U8", 1),
    "float8_e4m3fn": ("F8_E4M3", 1), "float8_e5m2": ("F8_E5M2", 1), "float8_e8m0fnu": ("F8_E8M0", 1),
    "complex64": ("C64", 8), "bool": ("BOOL", 1),
}  # fmt: skip
SIZES = dict(DTYPES.values())                                            # name in safetensors -> bytes
NAMES = {code: name for name, (code, _) in DTYPES.items()}               # name in safetensors -> torch's
MOST_AXES = 16
LONGEST_AXIS = 1 << 40
# bytes of an element -> memoryview's format for as many
WORDS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
CHUNK = 1 << 24           # bytes that are gathered at once from a tensor that is not contiguous


@dataclass
class Storage:
    """A flat run of bytes that tensors are views of. `data` comes later where a file holds it behind its pickles."""

    dtype: str                            # torch's name; "untyped": the tensor says it
    nbytes: int
    data: memoryview | None = None
    root: Storage | None = None           # the storage that this one is a part of, from byte `start` on
    start: int = 0

    def view(self) -> memoryview:
        """Return its bytes.

        Raises:
            WeightsError: the file promised them and does not hold them.
        """
        data = self.data if self.root is None else self.root.view()[self.start :][: self.nbytes]
        if data is None or len(data) != self.nbytes:
            raise WeightsError("a storage is missing, or shorter than its tensors say: the file is incomplete.")
        return data


@dataclass(frozen=True)
class Strided:
    """A tensor: a view into a storage, in elements. Made by `strided`, which checks that it stays inside."""

    storage: Storage
    dtype: str                            # torch's name
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return DTYPES[self.dtype][1]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.size

    def chunks(self) -> Iterator[memoryview]:
        """Yield the elements' bytes in row-major order, a bounded piece at a time.

        Raises:
            WeightsError: the storage is missing, or a truth value is neither 0 nor 1.
        """
        if not self.nbytes:
            return
        data = self.storage.view()
        if self.strides == contiguous(self.shape):
            pieces = iter([data[self.offset * self.size :][: self.nbytes]])
        else:
            pieces = self._gather(data)
        for piece in pieces:
            if self.dtype == "bool" and bytes(piece).translate(None, b"\0\1"):
                raise WeightsError("a tensor of truth values holds a byte that is neither 0 nor 1.")
            yield piece

    def _gather(self, data: memoryview) -> Iterator[memoryview]:
        """Copy along the longest axis at once: each such run is one step of the interpreter."""
        held = len(data) // self.size
        flat = data[self.offset * self.size : held * self.size].cast(WORDS[self.size])
        rows = max(1, CHUNK // (self.nbytes // self.shape[0]))
        for first in range(0, self.shape[0], rows):
            shape = (min(rows, self.shape[0] - first), *self.shape[1:])
            steps = contiguous(shape)
            axis = max(range(len(shape)), key=shape.__getitem__)
            length, source, target = shape[axis], max(1, self.strides[axis]), steps[axis]
            piece = memoryview(bytearray(math.prod(shape) * self.size))
            words = piece.cast(WORDS[self.size])
            for place in itertools.product(*(range(1 if at == axis else size) for at, size in enumerate(shape))):
                start = first * self.strides[0] + sum(map(operator.mul, place, self.strides))
                begin = sum(map(operator.mul, place, steps))
                words[begin : begin + length * target : target] = flat[start : start + length * source : source]
            yield piece


def strided(storage: object, dtype: str, offset: object, shape: object, strides: object) -> Strided:
    """Return a view into a storage: offset and strides in elements, all of it inside, no element twice.

    Raises:
        WeightsError: it reaches beyond the storage, overlaps itself, or is no view at all.
    """
    if not isinstance(storage, Storage):
        raise WeightsError("a tensor has no storage.")
    if dtype not in DTYPES:
        raise WeightsError(f"a tensor is of dtype {dtype}, which cannot be read.")
    sizes, steps = _integers(shape), _integers(strides)
    (start,) = _integers((offset,))
    if len(sizes) != len(steps) or len(sizes) > MOST_AXES or max((*sizes, *steps, start), default=0) > LONGEST_AXIS:
        raise WeightsError(f"a tensor has the impossible shape {list(sizes)[:8]} with strides {list(steps)[:8]}.")
    held = storage.nbytes // DTYPES[dtype][1]
    reach = 1
    if math.prod(sizes):
        for step, size in sorted((step, size) for step, size in zip(steps, sizes, strict=True) if size > 1):
            if step < reach:
                raise WeightsError(f"a tensor of shape {list(sizes)} overlaps itself (strides {list(steps)}).")
            reach += step * (size - 1)
        if start + reach > held:
            raise WeightsError(
                f"a tensor of shape {list(sizes)} reaches beyond its storage of {held} elements "
                f"(offset {start}, strides {list(steps)})."
            )
    return Strided(storage, dtype, start, sizes, steps)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a row-major tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _integers(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or any(type(value) is not int or value < 0 for value in values):
        raise WeightsError("a tensor's shape, strides or offset are no natural numbers.")
    return tuple(values)
