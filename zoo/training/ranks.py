"""What each process of a training holds by itself, for a checkpoint that may fall between two log lines.

And the one checkpoint that all of them take up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from zoo.errors import RunError
from zoo.model import Model
from zoo.training import chance, checkpoints
from zoo.training.checkpoints import Checkpoint
from zoo.training.log import Meters

say = logging.getLogger("zoo")


def newest(directory: Path, accelerator: Accelerator) -> Checkpoint | None:
    """Return the checkpoint of the last step that is whole, the same in every process; every process must come here.

    Raises:
        RunError: the directory cannot be listed, or processes find different checkpoints.
    """
    found = checkpoints.newest(directory)
    steps = gather_object([-1 if found is None else found.step])
    if len(set(steps)) > 1:
        what = ", ".join("none" if step < 0 else f"step {step}" for step in steps)
        raise RunError(f"The processes find different checkpoints in {directory} ({what}): put it where all can read.")
    return found


def gathered(model: Model, meters: Meters, accelerator: Accelerator) -> dict[str, Tensor]:
    """Return the random state, the meters and the buffers of every process, as "RANK/KIND/NAME".

    Of a single process, only buffers that are not among the weights, as of what a training remembers for itself. Every
    process must come here; all get the same.
    """
    mine = {f"rng/{name}": value for name, value in chance.state().items()}
    mine |= {f"meter/{name}": value for name, value in meters.state().items()}
    alone = accelerator.num_processes == 1
    saved = set(model.state_dict()) if alone else set()
    mine |= {f"buffer/{name}": value.cpu().clone() for name, value in _buffers(model).items() if name not in saved}
    if alone:
        return {f"0/{name}": value for name, value in mine.items()}
    everyone = gather_object([mine])
    return {f"{rank}/{name}": value for rank, held in enumerate(everyone) for name, value in held.items()}


@torch.no_grad()
def take_up(held: Mapping[str, Tensor], model: Model, meters: Meters, accelerator: Accelerator) -> None:
    """Give this process back what it held; among another number of processes, give it the mean of what all held.

    Raises:
        RunError: the random state of this process is missing.
    """
    parts: dict[int, dict[str, dict[str, Tensor]]] = {}
    for name, value in held.items():
        rank, kind, rest = name.split("/", 2)
        parts.setdefault(int(rank), {}).setdefault(kind, {})[rest] = value
    processes, rank = accelerator.num_processes, accelerator.process_index
    if sorted(parts) != list(range(len(parts))) or not parts:
        raise RunError("The checkpoint's record of its processes is incomplete: use an older one.")
    if len(parts) == processes:
        mine = parts[rank]
        chance.restore(mine.get("rng", {}))
    else:
        say.warning("The checkpoint was made by %d processes, now there are %d: the result is the same up to rounding.",
                    len(parts), processes)  # fmt: skip
        mine = {kind: _mean([part.get(kind, {}) for part in parts.values()]) for kind in ("meter", "buffer")}
    meters.restore(mine.get("meter", {}), accelerator.device)
    buffers = _buffers(model)
    for name, value in mine.get("buffer", {}).items():
        if name not in buffers or buffers[name].shape != value.shape:
            raise RunError(f"The checkpoint's buffer {name} does not fit this model.")
        buffers[name].copy_(value)


def _buffers(model: Model) -> dict[str, Tensor]:
    return {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}


def _mean(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name].double() for part in parts]).mean(0) for name in parts[0]}
