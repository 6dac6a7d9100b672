"""How far long work is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PAUSE = 2.0                  # seconds between two plain lines


class Progress:
    """Call it as the work goes on; use it as a context."""

    def __init__(self, title: str):
        self.title = title
        self._bar: Bar | None = None
        self._begun = time.monotonic()
        self._last = float("-inf")
        self._stage = "", 0.0, 0      # of an evaluation: which images, since when, and how many were done then

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            texts = TextColumn("{task.description}"), TextColumn("{task.fields[values]}")
            self._bar = Bar(texts[0], BarColumn(bar_width=None), texts[1], TimeRemainingColumn(), expand=True)
            self._bar.add_task(self.title, total=None, values="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: float, total: float, values: Mapping[str, float | None]) -> None:
        """Tell how far a training is: kimg done, kimg in all, and the values to watch."""
        short = f"{done:g}/{total:g} kimg"
        if self._bar is not None and "images_per_second" in values:      # a bar has room for little more
            short += f"  {_short(values['images_per_second'])} img/s"
        elif self._bar is None:
            short += "".join(f"  {name} {_short(value)}" for name, value in _few(values))
        self._tell(done, total, short)

    def images(self, stage: str, done: int, total: int) -> None:
        """Tell how far an evaluation is: which images, how many are done, how many there are."""
        now = time.monotonic()
        if stage != self._stage[0]:
            self._stage = stage, now, done
        _, since, before = self._stage
        left = (now - since) * (total - done) / (done - before) if done > before else 0.0
        told = f"  about {left:.0f} s left" if self._bar is None and left >= 1 else ""      # a bar tells it itself
        self._tell(done, total, f"{done}/{total} {stage} images{told}")

    def _tell(self, done: float, total: float, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, values=text)
        elif self._last < float("inf") and (done >= total or time.monotonic() - self._last >= PAUSE):
            self._last = time.monotonic()
            try:
                print(f"{self.title}: {text}  {self._last - self._begun:.0f} s", flush=True)
            except OSError:
                self._last = float("inf")      # nobody reads any more, as behind `| head`; the work goes on


def _few(values: Mapping[str, float | None]) -> list[tuple[str, float | None]]:
    """Return the first term of each phase, and what stands for itself, such as the speed; the log has all of them."""
    first: dict[str, tuple[str, float | None]] = {}
    for name, value in values.items():
        if not name.endswith(".gradient_norm"):
            first.setdefault(name.partition(".")[0], (name, value))
    return list(first.values())


def _short(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"
