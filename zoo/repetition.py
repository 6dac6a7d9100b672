"""An evaluation made again exactly as its receipt says, and whether the same values come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo.errors import EvaluationError, ZooError
from zoo.evaluation import Evaluation, differing
from zoo.measuring import Settings, evidence, measured
from zoo.subjects import opened

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.metrics.evidence import Progress
    from zoo.model import Model
    from zoo.training.run import Run

ROUNDING = 1e-6            # relative difference of values that are the same but for rounding
T = TypeVar("T")


@dataclass(frozen=True)
class Repetition:
    """An evaluation, and the same one made again."""

    first: Evaluation
    again: Evaluation

    @property
    def differences(self) -> dict[str, float]:
        """Relative difference of each value of the first; infinite where it did not come again."""
        found = {name: (value, self.again.values.get(name)) for name, value in self.first.values.items()}
        return {name: float("inf") if now is None else _relative(value, now) for name, (value, now) in found.items()}

    @property
    def largest(self) -> float:
        """The largest relative difference; 0 if all values are the same bit for bit."""
        return max(self.differences.values(), default=0.0)

    @property
    def agrees(self) -> bool:
        """Whether all values are the same but for rounding."""
        return self.largest <= ROUNDING

    def to_dict(self) -> dict[str, Any]:
        """Return what came out of plain types; the difference of a value that did not come again is None."""
        apart = {name: None if value == float("inf") else value for name, value in self.differences.items()}
        both = {"first": self.first.to_dict(), "again": self.again.to_dict()}
        return {"agrees": self.agrees, "differences": apart, **both}

    def __str__(self) -> str:
        if not self.largest:
            return f"The same values, bit for bit: {', '.join(self.first.values)}."
        if self.agrees:
            return f"The same values but for rounding: the largest relative difference is {self.largest:.2g}."
        lines = [f"Other values: the largest relative difference is {self.largest:.2g}."]
        for name, apart in self.differences.items():
            now = self.again.values.get(name)
            if apart > ROUNDING:
                lines.append(f"{name}  {self.first[name]:.9g} then, {'none' if now is None else f'{now:.9g}'} now")
        return "\n".join([*lines, *differing(self.first, self.again)])


def repeat(
    path: str | Path,
    model_or_run: Model | Run | str | Path | None = None,
    data: str | Path | ImageSet | None = None,
    *,
    shared: bool = False,
    progress: Progress | None = None,
) -> Repetition:
    """Evaluate again exactly as a receipt says, and return both results. Nothing is written.

    Args:
        path: an evaluation.json, or a run directory that holds one.
        model_or_run, data: where these are now; None: where the receipt says.
        shared, progress: as for `zoo.evaluate`.

    Raises:
        EvaluationError: the receipt cannot be read; or model, data or features are not those that it is about.
        UnknownName, DataError, WeightsError: as `zoo.evaluate`.
    """
    from zoo.metrics.sharing import Crew

    first = Evaluation.open(path)
    said, given = first.receipt, first.receipt["given"]
    crew = Crew.of_launch() if shared else Crew()
    device = "cpu" if said["device"] == "cpu" else crew.device      # another device is taken as it is found
    settings = Settings.said(said)
    resolution = said["data"]["resolution"] if said["model"]["architecture"] == "images" else None
    subject = _found(path, "model", model_or_run, given, partial(opened, device=device, resolution=resolution))
    images = _found(path, "data", data, given, subject.real)
    _same(path, "data (fingerprint)", images.fingerprint, said["data"]["fingerprint"])
    shown = evidence(subject, images, settings, progress=progress, crew=crew)
    _same(path, "weights (sha256)", shown.fakes.about()["digest"], said["model"]["digest"])
    if said["features"] is not None:
        for what, entry in (("features (sha256 of their weights)", "digest"), ("features (resize)", "resize")):
            _same(path, what, getattr(shown.extractor, entry), said["features"][entry])
    again = measured(shown, settings, given={**given, "model": None, "data": None}, command=None, left_out={})
    return Repetition(first, Evaluation(*again))


def _found(path: str | Path, what: str, now: Any, given: Mapping[str, Any], open_it: Callable[[Any], T]) -> T:
    if now is not None:
        return open_it(now)
    if given[what] is None:
        raise EvaluationError(f"{path} does not say where its {what} lies, as it was no name or path: give it.")
    try:
        return open_it(given[what])
    except ZooError as error:
        raise EvaluationError(f"{path}: its {what} is not at {given[what]!r}; say where it is. ({error})") from error


def _same(path: str | Path, what: str, now: str, then: str) -> None:
    if now != then:
        apart = f"{then[:16]} then, {now[:16]} now"
        raise EvaluationError(f"{path} is about other {what}: {apart}. Give those, or evaluate these anew.")


def _relative(a: float, b: float) -> float:
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))
