"""What a run tells: one line a tick in log.jsonl, its curves, and sample grids from the same latents all along."""

from __future__ import annotations

import json
import logging
import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from zoo.errors import RunError
from zoo.images import save_grid
from zoo.model import Model
from zoo.training.faults import MOST
from zoo.training.memory import give_back, ran_out
from zoo.training.run import log_lines

say = logging.getLogger("zoo")
GRID = 64          # images in a sample grid
WATCHED = ("spread", "apart", "vendi", "recall", "coverage", "ndb", "drift", "copies")      # what curves show of a look
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

    def means(self, accelerator: Accelerator) -> dict[str, float | None]:
        """Return the mean of each value over processes and since the last call, and start anew.

        A watched value that is not finite is None, which JSON can say.
        """
        if not self._sums:
            return {}
        names = sorted(self._sums)
        stacked = torch.stack([self._sums[name] / self._counts[name] for name in names])
        averaged = accelerator.reduce(stacked, "mean").tolist()
        self._sums.clear()
        self._counts.clear()
        return {name: value if isfinite(value) else None for name, value in zip(names, averaged)}

    def state(self) -> dict[str, Tensor]:
        """Return (sum, count) of each value, float64: the double of a float32 is that float32 again."""
        return {
            name: torch.tensor([float(value), self._counts[name]], dtype=torch.float64)
            for name, value in self._sums.items()
        }

    def restore(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Take back what `state` returned.

        Raises:
            ArithmeticError, TypeError, ValueError: it is not what `state` returns.
        """
        self._sums.clear()
        self._counts.clear()
        for name, value in state.items():
            total, count = map(float, value.tolist())
            if not 1 <= count < MOST:
                raise ValueError(f"{name} is a mean of {count:g} values")
            self._sums[name] = torch.tensor(total, dtype=torch.float32, device=device)
            self._counts[name] = int(count)


class Log:
    """log.jsonl, sample grids and curves of one run. A full disk costs pictures and delays lines, not the training."""

    def __init__(self, out: Path):
        self._out, self._path = out, out / "log.jsonl"
        self._waiting: list[str] = []      # lines that the disk had no room for
        self._complained = False

    def append(self, line: Mapping[str, object]) -> None:
        """Append one line of JSON, and those that could not be written before."""
        self._waiting.append(json.dumps(dict(line)) + "\n")
        whole = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(self._waiting))
                file.flush()
                os.fsync(file.fileno())      # it must survive what the checkpoint that comes after it survives
            self._waiting = []
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, whole)      # half a line would be in the way of the next one
            self._complain(error)

    def cut(self, step: int) -> None:
        """Drop the lines after a step, which a training that goes on from there writes again.

        The line that only closed a run goes as well: a run that is made longer has none there.
        """
        self._waiting = []
        if not self._path.exists():
            return
        if not self._path.is_file():      # a pipe or a device would never end
            raise RunError(f"{self._path} is no regular file: move it away, and it is written anew.")
        with self._path.open("r+b") as file:      # made shorter where it is: that needs no room on a full disk
            kept = 0
            for text in file:
                try:
                    line = json.loads(text)
                    if line["step"] > step or line.get("closing") or not text.endswith(b"\n"):
                        break
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    break      # the last line of a killed run may be half written
                kept += len(text)
            file.truncate(kept)
            os.fsync(file.fileno())

    def pictures(self, model: Model, kimg: float) -> Path | None:
        """Draw a grid of samples, named by kimg, and the curves up to now; return the grid's path if it was drawn."""
        try:
            drawn = grid(model, self._out / "samples", kimg)
            self.curves()
            return drawn
        except OSError as error:
            self._complain(error)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            say.warning("There is no memory for a grid of %d samples at %g kimg: it is left out.", GRID, kimg)
            give_back()
        return None

    def curves(self) -> None:
        """Draw the curves up to now."""
        try:
            curves(self._path, self._out / "curves.png")
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            say.warning("%s cannot be written to (%s): the log waits, pictures go.", self._out, error.strerror)
        self._complained = True


def grid(model: Model, directory: Path, kimg: float) -> Path:
    """Save a grid of samples as samples/000010.png, named by kimg."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / (f"{kimg:06.0f}.png" if kimg == int(kimg) else f"{kimg:010.3f}.png")
    save_grid(model.sample(GRID, seed=GRID_SEED, labels=model.each_class(GRID)), path)
    return path


def curves(log: Path, path: Path) -> None:
    """Draw every logged term over kimg, one panel a phase, and what the watchdog saw; nothing before the first tick."""
    from matplotlib.figure import Figure

    lines = log_lines(log)
    if not lines:
        return
    values = [(line["kimg"], _values(line)) for line in lines]
    panels: dict[str, list[str]] = defaultdict(list)
    for name in sorted({name for _, told in values for name in told}):
        panels[name.split(".", 1)[0]].append(name)
    high = 2.6 * max(1, len(panels))      # inches
    figure = Figure(figsize=(8, high))
    # Fixed margins: a layout that matplotlib fits draws everything once more, to measure it.
    figure.subplots_adjust(0.09, 0.5 / high, 0.98, 1 - 0.35 / high, hspace=0.25)
    axes = figure.subplots(max(1, len(panels)), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (phase, members) in zip(axes, panels.items()):
        for name in members:
            points = [(kimg, told[name]) for kimg, told in values if told.get(name) is not None]
            marker = "." if len(points) == 1 else None            # a line needs two points to be seen
            axis.plot(*zip(*points), label=name.partition(".")[2] or name, linewidth=1, marker=marker)
        axis.set_title(phase, loc="left", fontsize=9)
        axis.legend(fontsize=7, frameon=False, ncols=3)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("thousand real images shown (kimg)")
    figure.savefig(path, dpi=110)


def _values(line: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what is drawn of a log line: its terms, and shares and ratios that the watchdog saw."""
    seen = line.get("watchdog")
    shown = {name: seen[name] for name in WATCHED if isinstance(seen.get(name), int | float)} \
        if isinstance(seen, Mapping) else {}  # fmt: skip
    return {**line["terms"], **{f"watchdog.{name}": value for name, value in shown.items()}}
