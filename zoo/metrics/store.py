"""The user's cache of tensors: converted feature weights, and features of real data."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from zoo.errors import EvaluationError
from zoo.storage import place


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file in the cache.

    Raises:
        EvaluationError: it is damaged; the message says to delete it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise EvaluationError(f"{path} is damaged ({error}): delete it, it will be made again.") from error


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to a safetensors file, whole or not at all. A folder that cannot be written is passed over."""
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with suppress(OSError):                              # a cache saves time; the work goes on without it
        path.parent.mkdir(parents=True, exist_ok=True)
        place(content, path)
