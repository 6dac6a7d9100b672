"""What a run tells: one line a tick in log.jsonl, its curves, and sample grids from the same latents all along."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from zoo.images import save_grid
from zoo.model import Model

GRID = 64          # images in a sample grid
GRID_SEED = 0      # the same latents and labels in every grid, so that grids can be compared


class Meters:
    """Means of named scalars between two ticks; sums stay on the device, so that no step waits for them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, prefix: str, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            if value.ndim == 0:
                key = f"{prefix}.{name}"
                self._sums[key] = self._sums.get(key, 0) + value.detach().float()
                self._counts[key] += 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the mean of each value over processes and since the last call, and start anew."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        stacked = torch.stack([self._sums[name] / self._counts[name] for name in names])
        averaged = accelerator.reduce(stacked, "mean").tolist()
        self._sums.clear()
        self._counts.clear()
        return dict(zip(names, averaged))


def append(path: Path, line: Mapping[str, object]) -> None:
    """Append one line of JSON."""
    with path.open("a") as file:
        file.write(json.dumps(dict(line)) + "\n")


def cut(path: Path, step: int) -> None:
    """Drop the lines of a log that come after a step: a resumed run writes them again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] > step:
                break
        except (ValueError, KeyError):
            break      # the last line of a killed run may be half written
        kept.append(line + "\n")
    path.write_text("".join(kept))


def grid(model: Model, directory: Path, kimg: float) -> Path:
    """Save a grid of samples as samples/000010.png, named by kimg."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / (f"{kimg:06.0f}.png" if kimg == int(kimg) else f"{kimg:010.3f}.png")
    save_grid(model.sample(GRID, seed=GRID_SEED, labels=model.each_class(GRID)), path)
    return path


def curves(log: Path, path: Path) -> None:
    """Draw every logged term over kimg, one panel a phase; nothing before the first tick."""
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if not lines:
        return
    names = sorted({name for line in lines for name in line["terms"]})
    panels: dict[str, list[str]] = defaultdict(list)
    for name in names:
        panels[name.split(".", 1)[0]].append(name)
    figure = Figure(figsize=(8, 2.6 * max(1, len(panels))), layout="constrained")
    axes = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    marker = "." if len(lines) == 1 else None            # a line needs two points to be seen
    for axis, (phase, members) in zip(axes, panels.items()):
        for name in members:
            points = [(line["kimg"], line["terms"][name]) for line in lines if name in line["terms"]]
            axis.plot(*zip(*points), label=name.split(".", 1)[1], linewidth=1, marker=marker)
        axis.set_title(phase, loc="left", fontsize=9)
        axis.legend(fontsize=7, frameon=False, ncols=3)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("thousand real images shown (kimg)")
    figure.savefig(path, dpi=110)
