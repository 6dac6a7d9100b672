"""What a reader of foreign checkpoints is given, and what it returns.

A plugin offers formats by its hook `zoo_formats`: name -> "package.module:FORMAT", where FORMAT is a `Format`. Its
reader gets a `Source`, files that were already read as plain data, and returns a `Converted`: the architecture, its
configuration, and the tensors under our names. A `Part` keeps the books: every tensor of the file is moved or named as
left out, so that a file with one too few or too many is refused by the name that it has in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from torch import Tensor

from zoo.errors import WeightsError

# What a file holds: dict, list, str, int, float, bool, None, torch.Tensor and Instance, nested. Sets and tuples come
# as lists; OrderedDict, argparse.Namespace and dnnlib's EasyDict as dict; numpy arrays as Tensor, scalars as numbers.
Tree = Any
Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True)
class Instance:
    """An object of an upstream class, as data: the name of its class and its attributes. None of its code was run."""

    kind: str                        # "Generator"; for TensorFlow's pickles "dnnlib.tflib.network.Network"
    state: Mapping[str, Tree]


@dataclass(frozen=True)
class Source:
    """A foreign checkpoint: the weights files, read, and the JSON files that lie beside them."""

    path: Path                                                        # what the caller gave
    files: Mapping[str, Tree]                                         # file name -> what it holds
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)      # file name -> its JSON object

    def only(self) -> tuple[str, Tree]:
        """Return the name and content of the only file.

        Raises:
            WeightsError: there are several.
        """
        if len(self.files) != 1:
            raise WeightsError(f"{self.path} holds several checkpoints ({', '.join(sorted(self.files))}): give one.")
        return next(iter(self.files.items()))


class Part:
    """One network's share of a conversion: moves tensors from a file's names to ours and notices what is left over.

    Args:
        file: the file's name.
        tensors: the network's tensors under the file's names.
        into: where they go: "generator", "averages.generator", ...
        within: what a file of several networks calls this one, for messages.
    """

    def __init__(self, file: str, tensors: Mapping[str, Tensor], into: str, within: str = ""):
        self.file, self.into = file, into
        self.place = f"{file}, {within}" if within else file      # what messages begin with
        self.source = dict(tensors)
        self.tensors: dict[str, Tensor] = {}        # our full name -> tensor
        self.names: dict[str, str] = {}             # our full name -> its name in the file
        self.measured: dict[str, None] = {}         # names in the file that sizes were read from, in order
        self._left = dict.fromkeys(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self.source

    def __iter__(self) -> Iterator[str]:
        return iter(self.source)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.source:
            raise WeightsError(
                f"{self.place}: tensor {name!r} is missing: the file is incomplete or of another format."
            )
        return self.source[name]

    def peek(self, name: str) -> Tensor:
        """Return a tensor, to read a size or a value from, without using it up.

        Raises:
            WeightsError: the file lacks it.
        """
        tensor = self[name]
        self.measured[name] = None
        return tensor

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """Return a tensor's lengths along so many axes, to read sizes from.

        Raises:
            WeightsError: the file lacks it, or it has another number of axes, or is empty.
        """
        found = tuple(self.peek(name).shape)
        if len(found) != axes or 0 in found:
            raise self._misshapen(name)
        return found

    def size(self, name: str, axis: int = 0) -> int:
        """Return a tensor's length along one axis.

        Raises:
            WeightsError: the file lacks it, or it has fewer axes, or is empty there.
        """
        found = self.peek(name).shape
        if axis >= len(found) or not found[axis]:
            raise self._misshapen(name)
        return found[axis]

    def move(self, name: str, to: str, change: Callable[[Tensor], Tensor] | None = None) -> None:
        """Take the tensor `name` of the file as our `to` (without the network's name), changed by `change`.

        Raises:
            WeightsError: the file lacks it, or its shape cannot be changed so.
        """
        tensor = self[name]
        try:
            self._put(to, tensor if change is None else change(tensor), name)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise self._misshapen(name) from error
        self._left.pop(name, None)

    def move_layer(self, name: str, to: str, *, bias: bool = True) -> None:
        """Take a layer's weight and bias as they are.

        Raises:
            WeightsError: the file lacks one.
        """
        for each in ("weight", "bias") if bias else ("weight",):
            self.move(f"{name}.{each}", f"{to}.{each}")

    def fill(self, to: str, tensor: Tensor) -> None:
        """Give our `to` a value that the file does not hold, such as a bias of zeros."""
        self._put(to, tensor, "")

    def leave(self, *patterns: str) -> None:
        """Leave out the tensors whose whole name matches one of the regular expressions."""
        for name in [name for name in self._left if any(re.fullmatch(pattern, name) for pattern in patterns)]:
            del self._left[name]

    def close(self) -> Part:
        """Return this part.

        Raises:
            WeightsError: a tensor of the file was neither moved nor left out.
        """
        if self._left:
            first = next(iter(self._left))
            raise WeightsError(
                f"{self.place}: tensor {first!r} is unknown ({len(self._left)} such): the file is altered or of a "
                "variant that is not supported."
            )
        return self

    def _misshapen(self, name: str) -> WeightsError:
        return WeightsError(f"{self.place}: tensor {name!r} has the unexpected shape {list(self.source[name].shape)}.")

    def _put(self, to: str, tensor: Tensor, name: str) -> None:
        full = f"{self.into}.{to}"
        assert full not in self.tensors, f"{full} is given twice"
        self.tensors[full], self.names[full] = tensor, name


@dataclass(frozen=True)
class Converted:
    """What a reader returns: a network that no part brings is absent from the model."""

    architecture: str
    config: Mapping[str, object]
    parts: Sequence[Part]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)      # the model's own buffers, under full names
    license: str = ""                                                # if it is known from the file; else the format's


@dataclass(frozen=True)
class Format:
    """A reader of foreign checkpoints."""

    name: str                                     # a-z, 0-9 and _
    summary: str                                  # one line: whose files
    files: tuple[str, ...]                        # regular expressions of the file names that it takes from a folder
    recognise: Callable[[Source], bool]           # whether these files are of this format; must not raise
    read: Callable[[Source], Converted]           # raises WeightsError naming file and tensor
    license: str = ""                             # of the weights that upstream publishes, where it is always the same


def state_dict(tree: Tree) -> dict[str, Tensor] | None:
    """Return a tree that is a flat dictionary of tensors as one, or None if it is anything else."""
    if not isinstance(tree, dict) or not tree:
        return None
    flat = all(isinstance(name, str) and isinstance(value, Tensor) for name, value in tree.items())
    return tree if flat else None


def checked(kind: type[Config], settings: Mapping[str, object], place: str) -> Config:
    """Return settings that came with a file as a configuration.

    Args:
        place: the file, for the message.

    Raises:
        WeightsError: naming the first that is impossible.
    """
    try:
        return kind.model_validate(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"])
        what = f"{setting}={str(first['input'])[:60]}: " if setting else ""
        raise WeightsError(f"{place}: {what}{first['msg'].removeprefix('Value error, ')}.") from error


def network(instance: Instance) -> dict[str, Tensor]:
    """Return the state dict of a pickled torch module: its and its children's parameters and persistent buffers."""
    found: dict[str, Tensor] = {}
    stack = [("", instance)]
    while stack:
        prefix, module = stack.pop()
        passing = module.state.get("_non_persistent_buffers_set")
        left_out = [name for name in passing if isinstance(name, str)] if isinstance(passing, list) else []
        for kind in ("_parameters", "_buffers"):
            for name, value in held(module, kind).items():
                if isinstance(value, Tensor) and not (kind == "_buffers" and name in left_out):
                    found[f"{prefix}{name}"] = value
        children = held(module, "_modules").items()
        stack += [(f"{prefix}{name}.", child) for name, child in children if isinstance(child, Instance)]
    return found


def held(module: Instance, kind: str) -> Mapping[str, Tree]:
    """Return what a pickled torch module has under "_parameters", "_buffers" or "_modules"; {} if it is no dict."""
    inside = module.state.get(kind)
    return inside if isinstance(inside, dict) else {}
