"""Reading what other projects saved: the tensors of a file, and settings from a config.json that is a stranger's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Source, Tree, state_dict

WRAPPERS = ("state_dict", "model", "model_state_dict")      # what training scripts keep the tensors under


def tensors_of(tree: Tree) -> dict[str, Tensor] | None:
    """Return the flat dictionary of tensors that a file is or wraps; None if there is none."""
    if isinstance(tree, dict):
        for wrapper in WRAPPERS:
            if wrapper in tree and not isinstance(tree[wrapper], Tensor):
                return state_dict(tree[wrapper])
    return state_dict(tree)


def config_of(source: Source, kind: str) -> Mapping[str, Any] | None:
    """Return the diffusers configuration beside the file, or None without one.

    Raises:
        WeightsError: it is that of another class than `kind`.
    """
    for name, config in source.configs.items():
        said = config.get("_class_name", kind if "latent_channels" in config else None)
        if said == kind:
            return config
        if said is not None:
            raise WeightsError(f"{name} describes a {str(said)[:60]}: this reader takes {kind}.")
    return None


def only(config: Mapping[str, Any], name: str, possible: tuple[object, ...]) -> None:
    """Raise WeightsError if a configuration sets `name` to anything but one of the values that are supported."""
    if name in config and config[name] not in possible:
        allowed = ", ".join(str(value) for value in possible)
        raise WeightsError(f"config.json: {name}={str(config[name])[:60]!r} is not supported, only {allowed}.")
