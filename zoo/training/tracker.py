"""One of Accelerate's trackers, kept apart: its failure ends itself alone, and it changes nothing around it."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from numpy.typing import NDArray
from PIL import Image

from zoo.training import chance

say = logging.getLogger("zoo")
PROJECT = "genzoo"      # what runs are put under, unless WANDB_PROJECT, for one, says otherwise


@dataclass(frozen=True)
class Start:
    """From where a tracker takes a training up."""

    out: Path
    id: str       # of the tracker's run: the same in every part of the training
    step: int     # later points are void


@dataclass(frozen=True)
class Way:
    """What Accelerate leaves open about a tracker; the defaults suit any, which begins another run in every part."""

    options: Callable[[Start], dict[str, Any]] = lambda start: {}      # to go on with the run it had
    picture: Callable[[GeneralTracker, Path, int], None] | None = None
    finish: Callable[[GeneralTracker], None] = lambda tracker: tracker.finish()
    rewinds: bool = False                                              # it can take points back


class Tracker:
    """One tracker of one training.

    What it prints goes to standard error, which is no place of results, and the random numbers it draws are put back.
    """

    def __init__(self, name: str, out: Path, held: dict[str, Any]):
        """Make it, not begun yet.

        Args:
            name: one of Accelerate's.
            out: the run directory.
            held: "id" of its run, and the furthest "step" it was given in earlier parts, or -1.
        """
        self.name, self.way, self.held = name, WAYS.get(name, Way()), held
        self._out = out
        self._live: GeneralTracker | None = None
        self._failed = self._warned = False
        self._before = -1      # the furthest step of earlier parts, whose points it keeps

    @property
    def lasts(self) -> bool:
        """Whether it works, and keeps for good what it is given."""
        return self._live is not None and not self.way.rewinds

    def begin(self, step: int, settings: Mapping[str, bool | int | float | str] | None = None) -> None:
        """Begin its run, or go on with it, at a step."""
        self._before = -1 if self.way.rewinds else self.held["step"]
        if self._live is not None or self._failed:
            return
        with self._apart():
            kind = LOGGER_TYPE_TO_CLASS[self.name]
            options = self.way.options(Start(self._out, self.held["id"], step))
            if kind.requires_logging_directory:
                live = kind(self.name, self._out, **options)      # RUN/tensorboard
            else:
                live = kind(os.environ.get(f"{self.name.upper()}_PROJECT", PROJECT), **options)
            live.start()
            self._live = live
            if settings is not None:
                live.store_init_configuration(dict(settings))

    def values(self, values: Mapping[str, float], step: int) -> None:
        """Show numbers at a step, unless it has that step from an earlier part."""
        if self._live is not None and step > self._before:
            with self._apart():
                self._live.log(dict(values), step=step)

    def picture(self, path: Path, step: int) -> None:
        """Show a picture file at a step, if it is known how."""
        if self._live is not None and step > self._before and self.way.picture is not None:
            with self._apart():
                self.way.picture(self._live, path, step)

    def finish(self) -> None:
        """Wait until all is written or sent."""
        live, self._live = self._live, None
        if live is not None:
            with self._apart():
                self.way.finish(live)

    @contextmanager
    def _apart(self) -> Iterator[None]:
        drawn = chance.state()      # trackio draws from Python's generator
        try:
            with redirect_stdout(sys.stderr), warnings.catch_warnings(record=True) as told:
                yield
            if told and not self._warned:      # trackio's way to fail, once more with each picture
                self._warned = True
                say.warning("The tracker %s: %s; log.jsonl has everything.", self.name, _brief(told[0].message))
        except Exception as error:      # others' code, disks, networks: whatever it may be
            live, self._live, self._failed = self._live, None, True
            say.warning("The tracker %s failed and is left out from here on (%s: %s); log.jsonl has everything.",
                        self.name, type(error).__name__, _brief(error))  # fmt: skip
            if live is not None:
                with suppress(Exception), redirect_stdout(sys.stderr):
                    self.way.finish(live)
        finally:
            chance.restore(drawn)


def _brief(told: Exception | Warning | str) -> str:
    return (str(told).strip().splitlines() or [""])[0][:200].rstrip(".")


# How the trackers that were tried go on with a run, take a picture and end.


def _tensorboard_picture(live: GeneralTracker, path: Path, step: int) -> None:
    live.log_images({"samples": _pixels(path)[None]}, step=step, dataformats="NHWC")
    live.tracker.flush()


def _wandb_options(start: Start) -> dict[str, Any]:
    os.environ.setdefault("WANDB_FINISH_TIMEOUT", "300")      # seconds; else it waits for a lost network for ever
    return {
        "id": start.id,
        "name": start.out.resolve().name,
        "dir": str(start.out),
        "resume": "allow",
        "settings": {"console": "off"},      # else it takes the standard streams over
    }


def _wandb_picture(live: GeneralTracker, path: Path, step: int) -> None:
    live.log_images({"samples": [_pixels(path)]}, step=step)


def _trackio_picture(live: GeneralTracker, path: Path, step: int) -> None:
    import trackio

    live.log({"samples": trackio.Image(path)}, step=step)


def _trackio_finish(live: GeneralTracker) -> None:
    import trackio

    trackio.finish()      # what Accelerate calls would finish, and print, once more as the process ends


def _pixels(path: Path) -> NDArray[np.uint8]:
    """Return a picture as [height, width, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


WAYS: dict[str, Way] = {
    "tensorboard": Way(
        options=lambda start: {"purge_step": start.step + 1},
        picture=_tensorboard_picture,
        rewinds=True,
    ),
    "trackio": Way(
        options=lambda start: {
            "name": f"{start.out.resolve().name}-{start.id[:8]}",      # it knows a run by its name
            "resume": "allow",
            "embed": False,
        },
        picture=_trackio_picture,
        finish=_trackio_finish,
    ),
    "wandb": Way(
        options=_wandb_options,
        picture=_wandb_picture,
    ),
}
