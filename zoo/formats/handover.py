"""What the reading process hands over: one safetensors file, with the tree of everything else in its metadata.

In the tree's JSON a list is a list, {"t": 3} is tensor 3, {"d": [[key, value], ...]} a dictionary, and
{"i": kind, "s": [[key, value], ...]} an object of an upstream class. No two tensors share memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, BinaryIO

from zoo.errors import WeightsError
from zoo.formats.headers import MOST_TENSORS
from zoo.formats.inert import Array, Global, Kind, Record
from zoo.formats.storages import DTYPES, Storage, Strided, contiguous

DEEPEST = 100                  # levels of a tree
LARGEST_TREE = 1 << 22         # characters, roughly, of everything but tensors: 40 times a StyleGAN's
LONGEST_HEADER = 1 << 26       # bytes, of the file that is handed over
TREE = "tree"                  # the name of the tree in the metadata


def write(tree: Any, read: int, out: BinaryIO) -> None:
    """Write what `parse` found in a file of `read` bytes.

    Raises:
        WeightsError: it is circular, nested too deeply, or grows beyond its file: a bomb.
    """
    cost, nbytes, _ = _Measure().of(tree, DEEPEST)
    if cost > min(LARGEST_TREE, (1 << 20) + 16 * read):
        raise WeightsError("it unfolds to far more than the file's size: the same values are repeated over and over.")
    if nbytes > most_bytes(read):
        raise WeightsError(f"its tensors unfold to {nbytes:,} bytes out of a file of {read:,}.")
    tensors: list[Strided] = []
    document = json.dumps(_encode(tree, tensors), separators=(",", ":"))
    if len(tensors) > MOST_TENSORS:
        raise WeightsError(f"it holds {len(tensors):,} tensors; at most {MOST_TENSORS:,} are read.")
    order = sorted(range(len(tensors)), key=lambda number: -tensors[number].size)      # aligned, as safetensors wants
    records: dict[str, Any] = {"__metadata__": {TREE: document}}
    at = 0
    for number in order:
        tensor = tensors[number]
        span = [at, at + tensor.nbytes]
        records[str(number)] = {"dtype": DTYPES[tensor.dtype][0], "shape": list(tensor.shape), "data_offsets": span}
        at = span[1]
    head = json.dumps(records, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    out.write(len(head).to_bytes(8, "little") + head)
    for number in order:
        for piece in tensors[number].chunks():
            out.write(piece)


def most_bytes(read: int) -> int:
    """Return how many bytes the tensors of a file of `read` bytes may take: tied ones are copied."""
    return 4 * read + (1 << 24)


class _Measure:
    """Size of a tree, without unfolding what it repeats."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, int, int]] = {}
        self.open: set[int] = set()
        self.met = 0                             # characters of what was met so far, each value once

    def of(self, node: Any, levels: int) -> tuple[int, int, int]:
        """Return the characters (roughly) and the bytes of tensors that a node unfolds to, and its levels.

        Raises:
            WeightsError: it is circular or deeper than `levels`.
        """
        node = _plain(node)
        if isinstance(node, Strided):
            return 64, node.nbytes, 0
        if not isinstance(node, dict | list | tuple | Record):
            return 4 + (len(node) if isinstance(node, str) else 0), 0, 0
        if id(node) in self.open:
            raise WeightsError("it holds a value that contains itself.")
        if levels > 0 and id(node) not in self.known:
            self.open.add(id(node))
            cost, nbytes, height = 16, 0, 0
            inside = _inside(node)
            self.met += 16 + 4 * len(inside)
            if self.met > LARGEST_TREE:
                raise WeightsError(f"it holds more than {LARGEST_TREE:,} characters beside tensors; no model does.")
            for inner in inside:
                more, bytes_more, below = self.of(inner, levels - 1)
                cost, nbytes, height = cost + more, nbytes + bytes_more, max(height, below)
            self.known[id(node)] = cost, nbytes, height + 1
            self.open.discard(id(node))
        if levels <= 0 or self.known[id(node)][2] > levels:
            raise WeightsError(f"it is nested more than {DEEPEST} levels deep.")
        return self.known[id(node)]


def _inside(node: Any) -> list[Any]:
    if isinstance(node, Record):
        return [node.kind, *node.state, *node.state.values()]
    return [*node, *node.values()] if isinstance(node, dict) else list(node)


def _plain(node: Any) -> Any:
    """Return a leaf of the pickle as what the tree says for it."""
    if type(node) in _AS_IT_IS:
        return node
    match node:
        case Array(tensor=Strided() as tensor):
            return tensor
        case Array():
            raise WeightsError("it holds an array without content.")
        case Global(name=name):
            return name
        case Kind(dtype=dtype):
            return dtype
        case memoryview():
            return str(node, "latin-1")
        case Storage(dtype=dtype, nbytes=nbytes):
            dtype = "uint8" if dtype == "untyped" else dtype
            shape = (nbytes // DTYPES[dtype][1],)
            return Strided(node, dtype, 0, shape, contiguous(shape))
    return node


_AS_IT_IS = {dict, list, tuple, str, int, float, bool, type(None), Strided, Record}


def _encode(node: Any, tensors: list[Strided]) -> Any:
    node = _plain(node)
    if isinstance(node, Strided):
        tensors.append(node)
        return {"t": len(tensors) - 1}
    if isinstance(node, dict):
        return {"d": [[key, _encode(value, tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return [_encode(value, tensors) for value in node]
    if isinstance(node, Record):
        return {"i": node.kind, "s": [[key, _encode(value, tensors)] for key, value in node.state.items()]}
    return node


def decode(node: Any, tensor: Callable[[int], Any], instance: Callable[[str, dict[Any, Any]], Any]) -> Any:
    """Return the tree that a JSON document describes.

    Args:
        tensor: makes the leaf for tensor number n.
        instance: makes the leaf for an object of an upstream class.

    Raises:
        ValueError: the document is not as `write` makes it.
    """
    if node is None or isinstance(node, bool | int | float | str):
        return node
    if isinstance(node, list):
        return [decode(value, tensor, instance) for value in node]
    match node:
        case {"t": int(number), **rest} if not rest:
            return tensor(number)
        case {"d": list(pairs), **rest} if not rest:
            return _pairs(pairs, tensor, instance)
        case {"i": str(kind), "s": list(pairs), **rest} if not rest:
            return instance(kind, _pairs(pairs, tensor, instance))
    raise ValueError("the tree is malformed")


def _pairs(
    pairs: list[Any], tensor: Callable[[int], Any], instance: Callable[[str, dict[Any, Any]], Any]
) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if not (key is None or isinstance(key, bool | int | float | str)):
            raise ValueError("the tree is malformed")
        found[key] = decode(value, tensor, instance)
    return found
