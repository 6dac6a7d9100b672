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
from typing import Any

from torch import Tensor

from zoo.errors import WeightsError

# What a file holds: dict, list, str, int, float, bool, None, torch.Tensor and Instance, nested. Sets and tuples come
# as lists; OrderedDict, argparse.Namespace and dnnlib's EasyDict as dict; numpy arrays as Tensor, scalars as numbers.
Tree = Any


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
        file: the file's name, for messages.
        tensors: the network's tensors under the file's names.
        into: where they go: "generator", "averages.generator", ...
    """

    def __init__(self, file: str, tensors: Mapping[str, Tensor], into: str):
        self.file, self.into = file, into
        self.source = dict(tensors)
        self.tensors: dict[str, Tensor] = {}        # our full name -> tensor
        self.names: dict[str, str] = {}             # our full name -> its name in the file
        self.measured: dict[str, None] = {}         # names in the file that sizes were read from, in order
        self._left = dict.fromkeys(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self.source

    def __iter__(self) -> Iterator[str]:
        return iter(self.source)

    def peek(self, name: str) -> Tensor:
        """Return a tensor, to read a size or a value from, without using it up.

        Raises:
            WeightsError: the file lacks it.
        """
        if name not in self.source:
            raise WeightsError(f"{self.file}: tensor {name!r} is missing: the file is incomplete or of another format.")
        self.measured[name] = None
        return self.source[name]

    def move(self, name: str, to: str, change: Callable[[Tensor], Tensor] | None = None) -> None:
        """Take the tensor `name` of the file as our `to` (without the network's name), changed by `change`.

        Raises:
            WeightsError: the file lacks it, or its shape cannot be changed so.
        """
        if name not in self.source:
            raise WeightsError(f"{self.file}: tensor {name!r} is missing: the file is incomplete or of another format.")
        tensor = self.source[name]
        try:
            self._put(to, tensor if change is None else change(tensor), name)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            shape = list(tensor.shape)
            raise WeightsError(f"{self.file}: tensor {name!r} has the unexpected shape {shape}.") from error
        self._left.pop(name, None)

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
                f"{self.file}: tensor {first!r} is unknown ({len(self._left)} such): the file is altered or of a "
                "variant that is not supported."
            )
        return self

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


def network(instance: Instance) -> dict[str, Tensor]:
    """Return the state dict of a pickled torch module: its and its children's parameters and persistent buffers."""
    found: dict[str, Tensor] = {}
    stack = [("", instance)]
    while stack:
        prefix, module = stack.pop()
        state = module.state
        passing = set(state.get("_non_persistent_buffers_set") or ())
        for kind in ("_parameters", "_buffers"):
            for name, value in (state.get(kind) or {}).items():
                if isinstance(value, Tensor) and not (kind == "_buffers" and name in passing):
                    found[f"{prefix}{name}"] = value
        for name, child in (state.get("_modules") or {}).items():
            if isinstance(child, Instance):
                stack.append((f"{prefix}{name}.", child))
    return found
