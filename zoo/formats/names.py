"""What a pickle may name, each as a stand-in that only arranges data: nothing is imported, nothing of a file is run.

A table from (module, name) as the file spells them to a `Global`. Torch's and numpy's own rebuilding functions, plain
containers, and the two shells that NVIDIA's networks are wrapped in. Everything else is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from zoo.errors import WeightsError
from zoo.formats import arrays
from zoo.formats.inert import Array, Context, Fields, Global, Kind, Record
from zoo.formats.storages import DTYPES, Storage, Strided, strided

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
        full = full if full.isascii() else ascii(full)                 # a Cyrillic o is no o
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
        target.tensor = arrays.content(state)
    elif isinstance(target, Kind):
        arrays.byte_order(target, state)
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


def _namespace(context: Context) -> Fields:
    return Fields()


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


def _network(context: Context) -> Record:
    """TensorFlow networks: their attributes come as the object's state."""
    return Record("dnnlib.tflib.network.Network")


_BUILTINS: dict[str, Callable[..., object] | None] = {
    "set": _list, "frozenset": _list, "list": _list, "dict": _dict, "bytes": _encode, "bytearray": _encode,
    "int": None, "float": None, "bool": None, "str": None,
}  # fmt: skip
_MULTIARRAY: dict[str, Callable[..., object] | None] = {"_reconstruct": arrays.reconstruct, "scalar": arrays.scalar}

# Module -> name -> what a call of it makes; None: it is only ever a value.
_CALLS: dict[str, dict[str, Callable[..., object] | None]] = {
    "torch": {"Size": _list, "device": _device, "Tensor": None, **dict.fromkeys(DTYPES)},
    "torch._utils": {
        "_rebuild_tensor": _tensor, "_rebuild_tensor_v2": _tensor, "_rebuild_tensor_v3": _typed_tensor,
        "_rebuild_parameter": _parameter, "_rebuild_parameter_with_state": _parameter,
    },
    "torch._tensor": {"_rebuild_from_type_v2": _from_type},
    "torch.nn.parameter": {"Parameter": None},
    "torch.storage": {"_load_from_bytes": _load_from_bytes},
    "numpy": {"dtype": arrays.dtype, "ndarray": None, **dict.fromkeys(arrays.NAMES)},
    "numpy.core.multiarray": {**_MULTIARRAY},
    "numpy._core.multiarray": {**_MULTIARRAY},
    "numpy.core.numeric": {"_frombuffer": arrays.from_buffer},
    "numpy._core.numeric": {"_frombuffer": arrays.from_buffer},
    "collections": {"OrderedDict": _dict, "Counter": _dict, "defaultdict": _default_dict},
    "argparse": {"Namespace": _namespace},
    "pathlib": {"Path": _path, "PosixPath": _path, "WindowsPath": _path},
    "_codecs": {"encode": _encode},
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
    "dnnlib": {"EasyDict": _dict},
    "dnnlib.util": {"EasyDict": _dict},
    "dnnlib.tflib.network": {"Network": _network},
    "torch_utils.persistence": {"_reconstruct_persistent_obj": _persistent_object},
}  # fmt: skip

# Storage classes of torch -> dtype; "untyped" is bytes, and the tensor says of what.
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64", "UntypedStorage": "untyped",
}  # fmt: skip

TABLE = {
    (module, name): Global(f"{module}.{name}", does) for module, names in _CALLS.items() for name, does in names.items()
} | {
    (module, name): Global(f"{module}.{name}", storage=dtype)
    for module in ("torch", "torch.cuda", "torch.storage") for name, dtype in _STORAGES.items()
}  # fmt: skip
