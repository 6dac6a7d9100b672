"""What a pickle may name, each as a stand-in that only arranges data: nothing is imported, nothing of a file is run.

A table from (module, name) as the file spells them to a `Global`. Torch's and numpy's own rebuilding functions, plain
containers, and the two shells that NVIDIA's networks are wrapped in. Everything else is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.errors import WeightsError
from zoo.formats.storages import DTYPES, Storage, Strided, contiguous, strided


@dataclass(frozen=True)
class Context:
    """What the container around a pickle gives it."""

    persistent: Callable[[object], object] | None      # a persistent identifier -> the storage that it stands for
    nested: Callable[[memoryview], object]             # a file inside the file -> what it holds


@dataclass(frozen=True)
class Global:
    """A name of the table. Called, it arranges its arguments; as a value, it is just its name."""

    name: str
    does: Callable[..., object] | None = None
    storage: str = ""                                  # of a storage class: its dtype

    def __call__(self, context: Context, *arguments: object) -> object:
        if self.does is None:
            raise WeightsError(f"its pickle calls {self.name}, which is only a name here.")
        return self.does(context, *arguments)


@dataclass
class Record:
    """An object of an upstream class: the class's name and the attributes."""

    kind: str
    state: dict[Any, Any] = field(default_factory=dict)


class Fields(dict[Any, Any]):
    """argparse.Namespace: attributes, which come as the object's state."""


@dataclass
class Kind:
    """numpy.dtype: a dtype of torch's, and whether the bytes are the other way round; or text of a length."""

    dtype: str
    size: int
    swapped: bool = False


@dataclass
class Array:
    """numpy.ndarray: empty until its state comes."""

    tensor: Strided | None = None


# Modules without code of their own in the pickle: they are built as records. R3GAN's networks are made of such.
_MODULE = re.compile(
    r"torch\.nn\.modules\.[a-z_]+\.[A-Z]\w*|R3GAN\.[A-Z]\w*\.[A-Z]\w*|training\.networks\.(Generator|Discriminator)",
    re.ASCII,
)
# Lightning keys a dictionary by classes of its own, which are never called.
_LIGHTNING = re.compile(r"(pytorch_lightning|lightning)(\.[a-z_0-9]+)*\.[A-Z][A-Za-z]*", re.ASCII)
# Torch's tensors of other kinds: named so, where they are refused.
_TENSOR = re.compile(
    r"torch\._utils\._rebuild_\w+|torch\.(cuda\.)?(\w+Storage|(complex|float|u?int|qu?int|bits)\w*)", re.ASCII
)


def find(module: object, name: object) -> Global:
    """Return the stand-in for a name of the file.

    Raises:
        WeightsError: it is not in the table: it could be code.
    """
    if not isinstance(module, str) or not isinstance(name, str) or "." in name:
        raise WeightsError(f"its pickle names {str(name)[:100]!r}, which is no name of a class or function.")
    found = TABLE.get((module, name))
    if found is None:
        full = f"{module}.{name}"[:200]
        if _LIGHTNING.fullmatch(full):
            return Global(full)
        if _MODULE.fullmatch(full):
            return Global(full, lambda context: Record(full))
        if _TENSOR.fullmatch(full):
            raise WeightsError(f"it holds a kind of tensor that is not read ({full}): only dense ones of usual dtypes.")
        hint = " Of a whole model, save the state_dict instead." if name[:1].isupper() else ""
        raise WeightsError(f"its pickle names {full}, which is not data: nothing of it was run.{hint}")
    return found


def build(target: object, state: object) -> None:
    """Give an object of the pickle its state.

    Raises:
        WeightsError: this kind of object has none, or the state does not fit it.
    """
    if isinstance(target, Array):
        target.tensor = _array(state)
    elif isinstance(target, Kind):
        _order(target, state)
    elif isinstance(target, Record | Fields) and isinstance(state, dict):
        fields = target.state if isinstance(target, Record) else target
        fields.update((key, value) for key, value in state.items() if key not in _SOURCES)
    elif not (isinstance(target, dict) and isinstance(state, dict)):       # an OrderedDict's: torch's _metadata
        raise WeightsError("its pickle gives a state to something that has none.")


_SOURCES = ("module_src", "build_module_src")          # Python source inside NVIDIA's pickles


# Torch.


def _tensor(context: Context, storage: Any, offset: object, shape: object, strides: object, grad: object = False,
            hooks: object = None, metadata: object = None) -> Strided:  # fmt: skip
    if metadata:
        raise WeightsError("a tensor is conjugated or negated lazily, which cannot be read.")
    dtype = storage.dtype if isinstance(storage, Storage) else ""
    return strided(storage, "uint8" if dtype == "untyped" else dtype, offset, shape, strides)


def _typed_tensor(context: Context, storage: object, offset: object, shape: object, strides: object, grad: object,
                  hooks: object, dtype: object, metadata: object = None) -> Strided:  # fmt: skip
    if metadata or not isinstance(dtype, Global):
        raise WeightsError("a tensor is of an unknown dtype, or conjugated or negated lazily.")
    return strided(storage, dtype.name.removeprefix("torch."), offset, shape, strides)


def _parameter(context: Context, data: object, grad: object = True, hooks: object = None,
               state: object = None) -> Strided:  # fmt: skip
    if not isinstance(data, Strided):
        raise WeightsError("a parameter is no tensor.")
    return data


def _from_type(context: Context, function: object, kind: object, arguments: object, state: object) -> object:
    if not isinstance(function, Global) or not isinstance(arguments, tuple) or not isinstance(kind, Global):
        raise WeightsError("a tensor of a class of its own cannot be read.")
    if kind.name not in ("torch.Tensor", "torch.nn.parameter.Parameter"):
        raise WeightsError(f"a tensor of class {kind.name} cannot be read.")
    return function(context, *arguments)


def _load_from_bytes(context: Context, data: object) -> object:
    if not isinstance(data, memoryview):
        raise WeightsError("a file inside the file is no bytes.")
    return context.nested(data)


def _device(context: Context, kind: object, index: object = None) -> str:
    if not isinstance(kind, str) or not (index is None or isinstance(index, int)):
        raise WeightsError("a device has no name.")
    return kind if index is None else f"{kind}:{index}"


# Containers.


def _dict(context: Context, items: object = ()) -> dict[Any, Any]:
    if isinstance(items, dict):
        return dict(items)
    if not isinstance(items, list | tuple) or any(
        not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str | int | float)
        for pair in items
    ):
        raise WeightsError("a dictionary is made of something that is no pairs.")
    return dict(items)


def _default_dict(context: Context, factory: object = None, *items: object) -> dict[Any, Any]:
    return _dict(context, *items)


def _list(context: Context, items: object = ()) -> list[Any]:
    if not isinstance(items, list | tuple):
        raise WeightsError("a set is made of something that is no list.")
    return list(items)


def _path(context: Context, *parts: object) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise WeightsError("a path is no text.")
    return "/".join(map(str, parts)).replace("//", "/")


def _encode(context: Context, text: object = "", encoding: object = "latin1") -> memoryview:
    """Bytes as protocol 2 writes them, and a bytearray."""
    if isinstance(text, memoryview):
        return text
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise WeightsError("its pickle encodes something that is no text.")
    return memoryview(text.encode("latin-1"))


# NVIDIA's shells.


def _persistent_object(context: Context, meta: object) -> Record:
    """PyTorch networks: {type, version, module_src, class_name, state}; the source is not even looked at."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise WeightsError("a network of NVIDIA's kind has no class name.")
    record = Record(meta["class_name"])
    build(record, meta.get("state"))
    return record


# Numpy.

_LETTERS = {
    "b1": "bool", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8", "u2": "uint16",
    "u4": "uint32", "u8": "uint64", "f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64",
}  # fmt: skip


def _kind(context: Context, code: object, align: object = False, copy: object = False) -> Kind:
    if isinstance(code, Global):
        code = code.name
    if isinstance(code, str) and re.fullmatch(r"[US][0-9]{1,5}", code, re.ASCII):
        return Kind(code[0], int(code[1:]) * (4 if code[0] == "U" else 1))
    name = _LETTERS.get(code, code) if isinstance(code, str) else None
    if name not in DTYPES:
        raise WeightsError(f"an array of dtype {str(code)[:40]!r} cannot be read: only numbers and truth values.")
    return Kind(name, DTYPES[name][1])


def _order(kind: Kind, state: object) -> None:
    """A dtype's state: (version, byte order, sub-array, names, fields, size, alignment, flags)."""
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
        return memoryview(np.frombuffer(data, f"<u{part}").byteswap().tobytes())
    return data


def _shaped(kind: object, data: object, shape: object, fortran: object) -> Strided:
    if not isinstance(shape, tuple) or any(type(size) is not int or size < 0 for size in shape) or len(shape) > 16:
        raise WeightsError("an array has an impossible shape.")
    numbers = _numbers(kind, data, math.prod(shape))
    assert isinstance(kind, Kind)
    strides = tuple(reversed(contiguous(shape[::-1]))) if fortran else contiguous(shape)
    return strided(Storage(kind.dtype, len(numbers), numbers), kind.dtype, 0, shape, strides)


def _array(state: object) -> Strided:
    """An array's state: ([version], shape, dtype, whether in Fortran's order, bytes)."""
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise WeightsError("an array is malformed.")
    shape, kind, fortran, data = state[-4:]
    return _shaped(kind, data, shape, fortran)


def _reconstruct(context: Context, kind: object, shape: object, code: object) -> Array:
    if not isinstance(kind, Global) or kind.name != "numpy.ndarray":
        raise WeightsError("an array of a class of its own cannot be read.")
    return Array()


def _from_buffer(context: Context, data: object, kind: object, shape: object, order: object) -> Array:
    return Array(_shaped(kind, data, shape, order == "F"))


def _scalar(context: Context, kind: object, data: object) -> object:
    if isinstance(kind, Kind) and kind.dtype in ("U", "S") and isinstance(data, memoryview) and len(data) == kind.size:
        letters = np.frombuffer(data, "u1" if kind.dtype == "S" else ">u4" if kind.swapped else "<u4")
        text = "".join(map(chr, letters)).rstrip("\0")
        text.encode()                                  # half a character is malformed
        return text
    number = np.frombuffer(_numbers(kind, data, 1), _NUMPY[kind.dtype]).item() if isinstance(kind, Kind) else None
    if not isinstance(number, bool | int | float):
        raise WeightsError("a scalar of this dtype cannot be read.")
    return number


_NUMPY = {name: code if code[1:] == "1" else f"<{code}" for code, name in _LETTERS.items()}


def _table() -> dict[tuple[str, str], Global]:
    found: dict[tuple[str, str], Global] = {}

    def add(module: str, name: str, does: Callable[..., object] | None = None, storage: str = "") -> None:
        found[module, name] = Global(f"{module}.{name}", does, storage)

    for name, does in {"_rebuild_tensor": _tensor, "_rebuild_tensor_v2": _tensor, "_rebuild_tensor_v3": _typed_tensor,
                       "_rebuild_parameter": _parameter,
                       "_rebuild_parameter_with_state": _parameter}.items():  # fmt: skip
        add("torch._utils", name, does)
    add("torch._tensor", "_rebuild_from_type_v2", _from_type)
    add("torch.storage", "_load_from_bytes", _load_from_bytes)
    for letters, dtype in {"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
                           "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
                           "Bool": "bool", "ComplexFloat": "complex64"}.items():  # fmt: skip
        add("torch", f"{letters}Storage", storage=dtype)
        add("torch.cuda", f"{letters}Storage", storage=dtype)
    for module in ("torch", "torch.storage"):
        add(module, "UntypedStorage", storage="untyped")
    for dtype in (*DTYPES, "complex128"):
        add("torch", dtype)
    add("torch", "Tensor")
    add("torch.nn.parameter", "Parameter")
    add("torch", "Size", _list)
    add("torch", "device", _device)
    for module, name, does in (
        ("collections", "OrderedDict", _dict), ("collections", "Counter", _dict),
        ("collections", "defaultdict", _default_dict), ("dnnlib.util", "EasyDict", _dict),
        ("dnnlib", "EasyDict", _dict), ("argparse", "Namespace", lambda context: Fields()),
        ("_codecs", "encode", _encode), ("pathlib", "PosixPath", _path), ("pathlib", "WindowsPath", _path),
        ("pathlib", "Path", _path), ("numpy", "dtype", _kind),
    ):  # fmt: skip
        add(module, name, does)
    for module in ("builtins", "__builtin__"):
        for name in ("set", "frozenset", "list"):
            add(module, name, _list)
        add(module, "dict", _dict)
        for name in ("bytes", "bytearray"):
            add(module, name, _encode)
        for name in ("int", "float", "bool", "str"):
            add(module, name)
    for name in ("ndarray", *(name for name in DTYPES if name in _NUMPY)):
        add("numpy", name)
    for core in ("numpy.core", "numpy._core"):
        add(f"{core}.multiarray", "_reconstruct", _reconstruct)
        add(f"{core}.multiarray", "scalar", _scalar)
        add(f"{core}.numeric", "_frombuffer", _from_buffer)
    add("torch_utils.persistence", "_reconstruct_persistent_obj", _persistent_object)
    for module in ("dnnlib.tflib.network", "tfutil"):
        add(module, "Network", lambda context: Record("dnnlib.tflib.network.Network"))
    return found


TABLE = _table()
