"""Deltas: what a low-rank fine-tune changed, in a folder like a model's, which is added to its parent when loaded.

config.json says ``parent``: the name to load it by, and the sha256 of the tensors that are added to. model.safetensors
holds NAME.lora_up and NAME.lora_down for each weight, and whole tensors for statistics. Of the networks that were
trained in full beside them, such as a critic, it holds nothing: they are absent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from zoo.errors import Unsupported, WeightsError
from zoo.lowrank import DOWN, UP, merged, moved_buffers
from zoo.storage import Checkpoint, Parent, digest, write_manifest
from zoo.weights import described, golden_hash, write_tensors

if TYPE_CHECKING:
    from zoo.model import Model

DEEPEST = 8      # deltas of deltas that are followed to a whole model


def save(model: Model, directory: str | Path, *, run: Mapping[str, Any] | None = None) -> Path:
    """Write what a low-rank fine-tune changed, as config.json, model.safetensors, README.md and manifest.json.

    Raises:
        Unsupported: the model was not trained so, or not since it was loaded.
    """
    from zoo.cards import render

    delta = model.delta
    if delta is None or not delta.tensors:
        raise Unsupported("This model holds no delta: a fine-tune with method lora writes one, in RUN/delta.")
    origin = model.origin.get("parent") or model.origin
    parent = Parent(name=str(origin.get("name", "")), commit=origin.get("commit"), sha256=delta.base)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    absent = sorted({*model.absent, *delta.replaced})
    written = {**described(model), "absent": absent, "parent": parent.model_dump(mode="json")}
    (folder / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    write_tensors({**delta.tensors, **moved_buffers(model)}, folder)
    (folder / "README.md").write_text(render(model, run=run))
    # On the CPU, where the same weights give the same bits.
    write_manifest(folder, *golden_hash(model if model.device.type == "cpu" else deepcopy(model).cpu()))
    return folder


def possible(model: Model) -> bool:
    """Return whether a model holds a delta that can be added to its parent: not where that was adapted first."""
    if model.delta is None:
        return False
    mine = set(model.delta.networks)
    fates = [what for name, what in model.adapted.items() if name.removeprefix("averages.").partition(".")[0] in mine]
    return all(what == "copied" for what in fates)


def whole(delta: Checkpoint, find: Callable[[Parent], Checkpoint], depth: int = 0) -> Checkpoint:
    """Return the checkpoint of the whole model: the parent's tensors with a delta added.

    Args:
        find: returns the parent's checkpoint, which may be a delta again.

    Raises:
        WeightsError: the parent is another one, or the delta does not fit it.
    """
    if delta.parent is None:
        return delta
    if depth == DEEPEST:
        raise WeightsError(f"This is a delta of a delta, {DEEPEST} times over: no model of ours is.")
    parent = whole(find(delta.parent), find, depth + 1)
    networks = {name.partition(".")[0] for name in delta.tensors}
    base = {name: value for network in networks for name, value in _averaged(parent.tensors, network).items()}
    if digest(base) != delta.parent.sha256:
        name = delta.parent.name or "the given parent"
        raise WeightsError(
            f"This delta was made on other weights than {name} holds (sha256 {delta.parent.sha256[:12]}, there "
            f"{digest(base)[:12]}): give the ones it was made on as parent=NAME."
        )
    kept = {
        name: value for name, value in parent.tensors.items()
        if not {"averages", *networks, *delta.absent} & {name.partition(".")[0]}
    }  # fmt: skip
    absent = tuple(sorted({*delta.absent, *parent.absent}))
    return replace(delta, tensors={**kept, **_added(base, delta.tensors)}, absent=absent, parent=None)


def _averaged(tensors: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """Return the tensors of a network's average, or of the network where it has none, under the network's name."""
    for prefix in (f"averages.{network}.", f"{network}."):
        found = {name.removeprefix("averages."): t for name, t in tensors.items() if name.startswith(prefix)}
        if found:
            return found
    return {}


def _added(base: Mapping[str, Tensor], delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = dict(base)
    for full, value in delta.items():
        name, _, kind = full.rpartition(".")
        if kind == UP:
            down = delta.get(f"{name}.{DOWN}")
            if down is None or name not in base or not _fits(base[name], value, down):
                raise WeightsError(f"model.safetensors: the delta of {name} is incomplete or of another shape.")
            tensors[name] = merged(base[name], value, down)
        elif kind != DOWN:
            if full not in base or base[full].shape != value.shape or base[full].dtype != value.dtype:
                raise WeightsError(f"model.safetensors: {full} of the delta is not of the parent's shape and kind.")
            tensors[full] = value
    return tensors


def _fits(weight: Tensor, up: Tensor, down: Tensor) -> bool:
    matrices = weight.ndim > 1 and up.ndim == down.ndim == 2 and up.shape[1] == down.shape[0]
    return matrices and up.shape[0] == weight.shape[0] and down.shape[1] == weight[0].numel()
