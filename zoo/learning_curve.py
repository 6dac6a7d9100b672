"""How good a training was at each of its checkpoints: metrics over kimg, each value with its receipt.

RUN/evaluations.jsonl keeps them, a line for each time a checkpoint was measured, so that what was measured once stays
known when the checkpoint is pruned, and is not measured again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import receipts
from zoo.comparison import unlike
from zoo.documents import mapping
from zoo.errors import EvaluationError, RunError
from zoo.evaluation import Evaluation
from zoo.measuring import Settings, evidence, looks_at_features, measured, wanted
from zoo.subjects import Subject, fastest_device, named
from zoo.training.directory import step_of, steps
from zoo.training.run import LARGEST, Run
from zoo.uncertainty import rounded, with_errors

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.metrics.evidence import Evidence, Progress
    from zoo.model import Model

log = logging.getLogger("zoo")
FILE = "evaluations.jsonl"      # its name in a run directory


@dataclass(frozen=True)
class Point:
    """A checkpoint, measured."""

    step: int
    kimg: float
    evaluation: Evaluation

    def to_dict(self) -> dict[str, Any]:
        """Return {"step", "kimg", "values", "receipt"} of plain types."""
        return {"step": self.step, "kimg": self.kimg, **self.evaluation.to_dict()}


@dataclass(frozen=True)
class LearningCurve:
    """The checkpoints of a run, measured alike; kimg rises."""

    points: tuple[Point, ...]

    def values(self, name: str) -> list[tuple[float, float]]:
        """Return (kimg, value) of each point that has a value of this name, such as "fid" or "fid_std_error"."""
        found = ((point.kimg, point.evaluation.values.get(name)) for point in self.points)
        return [(kimg, value) for kimg, value in found if value is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return {"points": [...]} of plain types."""
        return {"points": [point.to_dict() for point in self.points]}

    def __str__(self) -> str:
        rows = [("kimg", *(name for name, _, _ in with_errors(self.points[-1].evaluation.values)))]
        for point in self.points:
            told = with_errors(point.evaluation.values)
            rows.append((f"{point.kimg:g}", *(rounded(value, error) for _, value, error in told)))
        widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        return "\n".join([*table, str(self.points[-1].evaluation).rpartition("\n")[2]])


def learning_curve(
    run: Run | str | Path,
    data: str | Path | ImageSet,
    settings: Settings | None = None,
    *,
    shared: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> LearningCurve:
    """Measure every checkpoint that a run has, all alike, and return the values over kimg.

    What RUN/evaluations.jsonl holds of the same weights, images and settings is not measured again. Checkpoints that
    were measured before and have been pruned since are told as well. A training may go on meanwhile.

    Args:
        run: a run or its directory; `keep` of `zoo.train` says how many checkpoints it keeps.
        data, shared, command, progress: as for `zoo.evaluate`.
        settings: what is measured, and how; None: as `zoo.evaluate` does if not told otherwise.

    Raises:
        EvaluationError: there is no checkpoint, or as `zoo.evaluate`.
        RunError, WeightsError, DataError, UnknownName, ConfigError: run, networks or images cannot be read.
    """
    import torch

    from zoo.metrics.sharing import Crew

    settings = settings or Settings()
    opened = run if isinstance(run, Run) else Run.open(run)
    wanted(settings.metrics)
    crew = Crew.of_launch() if shared else Crew()
    before = crew.from_lead(lambda: known(opened))
    place = torch.device(crew.device or fastest_device())
    images: ImageSet | None = None
    now: dict[int, Point] = {}
    for folder in crew.from_lead(lambda: steps(opened.directory / "checkpoints")):
        held = _held(opened, folder)
        if not crew.agreed(held is not None) or held is None:
            continue
        subject = Subject(held[1].to(place), None, opened, place)
        images = images or subject.real(data)
        shown = evidence(subject, images, settings, progress=progress, crew=crew)
        step = step_of(folder)
        point = crew.from_lead(partial(_again, before, step, shown, settings))
        if point is None:
            given = {**named(opened, data), "model": None, "features": settings.features, "batch": settings.batch,
                     "force": settings.force, "budget": None}  # fmt: skip
            found = measured(shown, settings, given=given, command=command, left_out={})
            point = Point(step, held[0], Evaluation(*found))
            if crew.leads:
                _keep(opened, point)
        now[step] = point
    if not now:
        raise EvaluationError(f"{opened.directory} has no whole checkpoint: zoo train --every KIMG makes them.")
    return _curve(before, now, settings)


def known(run: Run) -> list[Point]:
    """Return what RUN/evaluations.jsonl holds, as it was written; half a line, and what is none, are passed over."""
    path = run.directory / FILE
    found = []
    for text in path.read_bytes().splitlines() if path.is_file() else []:
        with suppress(ValueError, RecursionError, EvaluationError):
            line = json.loads(text)
            step, kimg = (mapping(line).get(name) for name in ("step", "kimg"))
            if isinstance(step, int) and isinstance(kimg, int | float) and 0 <= step < LARGEST and 0 <= kimg < LARGEST:
                evaluation = Evaluation(**receipts.checked(line, path))
                Settings.said(evaluation.receipt)      # possible ones
                found.append(Point(step, kimg, evaluation))
    return found


def _held(run: Run, folder: Path) -> tuple[float, Model] | None:
    """Return kimg and model of a checkpoint, or None, said in one line, where it is damaged or has just been pruned."""
    from zoo.training.manifest import Manifest
    from zoo.training.networks import of_checkpoint

    try:
        manifest = Manifest.read(folder)
        manifest.verify(folder, ("model.safetensors",))
        return float(manifest.about["kimg"]), of_checkpoint(run, folder)
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.warning("Checkpoint %s is left out: %s.", folder.name, error)
        return None


def _again(before: Sequence[Point], step: int, shown: Evidence, settings: Settings) -> Point | None:
    """Return what was found earlier of the same weights, images and settings."""
    weights, images = shown.fakes.about()["digest"], shown.images
    data = (images.fingerprint, images.resolution, images.channels)
    seen = shown.extractor.digest if looks_at_features(wanted(settings.metrics)) else None
    for point in reversed(before):
        said = point.evaluation.receipt
        same = (step, weights, data, seen) == (
            point.step, said["model"]["digest"],
            tuple(said["data"][name] for name in ("fingerprint", "resolution", "channels")),
            mapping(said["features"]).get("digest"),
        )  # fmt: skip
        if same and Settings.said(said) == settings:
            return point
    return None


def _keep(run: Run, point: Point) -> None:
    """Add a line to the file; half a line that a crash left before it is ended first."""
    path = run.directory / FILE
    try:
        with path.open("ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                file.write(b"\n")
            file.write(json.dumps(point.to_dict(), allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise RunError(f"{path} cannot be written ({error.strerror}): make {run.directory} writable.") from error


def _curve(before: Sequence[Point], now: Mapping[int, Point], settings: Settings) -> LearningCurve:
    """Return the points of now, with those of before that are of one measure and whose checkpoints are gone."""
    last = now[max(now)]
    gone = {
        point.step: point for point in before
        if point.step < last.step and Settings.said(point.evaluation.receipt) == settings
        and not unlike(point.evaluation, last.evaluation)
    }  # fmt: skip
    found = {**gone, **now}
    return LearningCurve(tuple(found[step] for step in sorted(found)))
