"""What a pickle is made of here: plain values, and these few stand-ins, which only hold data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zoo.errors import WeightsError
from zoo.formats.storages import Strided


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
