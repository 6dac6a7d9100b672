"""What a disturbed run has in common with an undisturbed one: all that was learnt, drawn and told, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

CLOCK = ("seconds", "images_per_second")              # of a log line: how fast it went is no result
FOREIGN = ("rng/python", "rng/python_gauss", "rng/numpy", "rng/numpy_gauss")     # a fresh process draws these from the
# system, and training never uses them


def differences(run: Path, other: Path, *, also: Collection[str] = ()) -> list[str]:
    """Return what differs between two finished runs, a line each; nothing where all is equal.

    Args:
        also: names of sample grids that `run` may have beside those of `other`.
    """
    return [
        *_log(run, other),
        *_grids(run / "samples", other / "samples", also),
        *_files(run, other, ("model/model.safetensors", "model/config.json", "model/README.md", "model/manifest.json")),
        *_checkpoint(_newest(run), _newest(other)),
        *(f"left over: {path.relative_to(run)}" for path in (run / "checkpoints").iterdir() if path.name[0] == "."),
    ]


def lines(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log without what the clock says."""
    read = [json.loads(text) for text in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in read]


def _log(run: Path, other: Path) -> list[str]:
    mine, wanted = lines(run), lines(other)
    steps = [line["step"] for line in mine], [line["step"] for line in wanted]
    if steps[0] != steps[1]:
        return [f"log.jsonl has lines of steps {steps[0]}, not {steps[1]}"]
    return [f"log.jsonl, step {right['step']}: {left} is not {right}" for left, right in zip(mine, wanted)
            if left != right]  # fmt: skip


def _grids(mine: Path, wanted: Path, also: Collection[str]) -> list[str]:
    names = {path.name for path in mine.iterdir()} - set(also), {path.name for path in wanted.iterdir()} - set(also)
    if names[0] != names[1]:
        return [f"samples: {sorted(names[0])}, not {sorted(names[1])}"]
    return _files(mine, wanted, sorted(names[1]))


def _files(run: Path, other: Path, names: Collection[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        if not (run / name).is_file():
            found.append(f"{name} is missing")
        elif (run / name).read_bytes() != (other / name).read_bytes():
            found.append(f"{name} differs{_first(run / name, other / name)}")
    return found


def _newest(run: Path) -> Path:
    return max(path for path in (run / "checkpoints").iterdir() if path.name.isdecimal())


def _checkpoint(mine: Path, wanted: Path) -> list[str]:
    if mine.name != wanted.name:
        return [f"the newest checkpoint is of step {mine.name}, not {wanted.name}"]
    found = _files(mine, wanted, ("model.safetensors", "optimizer.safetensors"))
    left, right = (_own(load_file(path / "ranks.safetensors")) for path in (mine, wanted))
    if set(left) != set(right):
        found.append(f"ranks.safetensors holds {sorted(set(left) ^ set(right))} once")
    found += [f"{name} differs in ranks.safetensors" for name in right if name in left
              and not torch.equal(left[name], right[name])]  # fmt: skip
    states = [json.loads((path / "state.json").read_text()) | {"seconds": 0} for path in (mine, wanted)]
    if states[0] != states[1]:
        found.append(f"state.json: {states[0]} is not {states[1]}")
    return found


def _own(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in tensors.items() if name.partition("/")[2] not in FOREIGN}


def _first(left: Path, right: Path) -> str:
    """Return the name of the first tensor that two files have otherwise, and by how much."""
    if left.suffix != ".safetensors":
        return ""
    mine, wanted = load_file(left), load_file(right)
    if set(mine) != set(wanted):
        return f" in its names: {sorted(set(mine) ^ set(wanted))[:3]}"
    for name, value in wanted.items():
        if not torch.equal(mine[name], value):
            return f", first in {name}, by {(mine[name].double() - value.double()).abs().max():.3g}"
    return ""
