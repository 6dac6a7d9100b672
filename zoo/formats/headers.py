"""safetensors: the header of a file, checked more strictly than the format asks for.

Both ends use it: for a stranger's file, and for what the reading process hands over.
"""

from __future__ import annotations

import json
import math
from typing import Any

from zoo.errors import WeightsError
from zoo.formats.storages import LONGEST_AXIS, MOST_AXES, SIZES

LONGEST_HEADER = 1 << 22       # bytes; 250 tensors take 30,000
MOST_TENSORS = 50_000
LONGEST_NAME = 500


def header(data: memoryview, size: int, longest: int = LONGEST_HEADER) -> tuple[dict[str, Any], int]:
    """Return the records {name: {dtype, shape, data_offsets}} of a safetensors file, and where its header ends.

    The offsets are checked to cover the bytes from there on without hole or overlap. `__metadata__` is among the
    records if the file has it.

    Args:
        data: the file, or its beginning with the whole header.
        size: of the file.
        longest: bytes that the header may take.

    Raises:
        WeightsError: the file breaks the format's rules, or holds what no model's does.
    """
    if size < 10:
        raise WeightsError("its safetensors header is cut short.")
    length = int.from_bytes(data[:8], "little")
    if length > size - 8:
        raise WeightsError(f"its safetensors header says that it is {length:,} bytes long: the file is cut or altered.")
    if length > longest:
        raise WeightsError(f"its safetensors header is {length:,} bytes long; at most {longest:,} are read.")
    if data[8] != ord("{"):
        raise WeightsError("its safetensors header does not begin with '{'.")
    try:
        records = json.loads(str(data[8 : 8 + length], "utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"its safetensors header is no JSON ({type(error).__name__}): it is damaged.") from error
    if not isinstance(records, dict) or len(records) > MOST_TENSORS:
        raise WeightsError(f"its safetensors header is no list of at most {MOST_TENSORS:,} tensors.")
    metadata = records.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError("its safetensors metadata is not text.")
    spans = sorted(_span(name, record) for name, record in records.items() if name != "__metadata__")
    at = 0
    for begin, end, name in spans:
        if begin != at:
            raise WeightsError(f"tensor {name!r} begins at byte {begin} instead of {at}: the file is altered.")
        at = end
    if at != size - 8 - length:
        raise WeightsError(f"its tensors take {at:,} bytes, the file has {size - 8 - length:,}: it is cut or altered.")
    return records, 8 + length


def _span(name: str, record: Any) -> tuple[int, int, str]:
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise WeightsError(f"a tensor has the impossible name {name[:60]!r}.")
    if not isinstance(record, dict) or set(record) != {"dtype", "shape", "data_offsets"}:
        raise WeightsError(f"the record of tensor {name!r} is malformed.")
    dtype, shape, offsets = record["dtype"], record["shape"], record["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise WeightsError(f"tensor {name!r} is of dtype {str(dtype)[:40]}, which cannot be read.")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise WeightsError(f"tensor {name!r} has no natural numbers for its shape or place.")
    if len(shape) > MOST_AXES or max((*shape, *offsets)) > LONGEST_AXIS:
        raise WeightsError(f"tensor {name!r} has an impossible shape or place.")
    begin, end = offsets
    if end - begin != math.prod(shape) * SIZES[dtype]:
        raise WeightsError(f"tensor {name!r} of shape {shape} and dtype {dtype} does not take {end - begin} bytes.")
    return begin, end, name


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise WeightsError("its safetensors header gives a name twice: the file is altered.")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)
