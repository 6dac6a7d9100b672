"""How good a model is: samples of fixed seeds against real images, with a receipt that lets anyone repeat it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import receipts
from zoo.errors import EvaluationError
from zoo.measuring import METRICS, Settings, evidence, listed, measured, wanted
from zoo.subjects import named, opened
from zoo.uncertainty import with_errors

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.metrics.evidence import Evidence, Progress
    from zoo.model import Model
    from zoo.training.run import Run


@dataclass(frozen=True)
class Evaluation:
    """Metric values, and the receipt: all that is needed to get the same values again."""

    values: dict[str, float]
    receipt: dict[str, Any]

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @classmethod
    def open(cls, path: str | Path) -> Evaluation:
        """Return what an evaluation.json holds, or the one in a run directory.

        Raises:
            EvaluationError: there is none, it is damaged, lacks an entry, or is of another schema.
        """
        return cls(**receipts.read(path))

    def to_dict(self) -> dict[str, Any]:
        """Return {"values": ..., "receipt": ...} of plain types."""
        return {"values": dict(self.values), "receipt": dict(self.receipt)}

    def to_json(self) -> str:
        """Return values and receipt as a JSON document."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write the JSON document to a file, whole or not at all, and return its path."""
        from zoo.storage import place

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        place(self.to_json().encode(), path)
        return path

    def __str__(self) -> str:
        told = with_errors(self.values)
        width = max((len(name) for name, _, _ in told), default=0)
        lines = [f"{name:<{width}}  {value:.6g}{_margin(error)}" for name, value, error in told]
        receipt, features = self.receipt, self.receipt["features"]
        lines += [f"{name} was left out: {why}" for name, why in receipt.get("left_out", {}).items()]
        drawn = f"{receipt['fake_images']} samples (seed {receipt['seed']}, psi {receipt['psi']:g})"
        against = f"{receipt['real_images']} images of {receipt['data']['name']}"
        seen = "" if features is None else f"; features {features['name']}, resized {features['resize']}, weights "
        seen += "" if features is None else features["digest"][:12]
        return "\n".join([*lines, f"{drawn} against {against}{seen}"])


def evaluate(
    model_or_run: Model | Run | ImageSet | str | Path,
    data: str | Path | ImageSet,
    *,
    metrics: Sequence[str] = METRICS,
    samples: int = Settings.samples,
    features: str = Settings.features,
    seed: int = Settings.seed,
    psi: float = Settings.psi,
    batch: int = Settings.batch,
    reference: int | None = Settings.reference,
    force: bool = Settings.force,
    errors: int = Settings.errors,
    budget: float | None = None,
    resolution: int | None = None,
    shared: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Return metric values of a model's samples against real images, with their receipt.

    Args:
        model_or_run: a model, a name for `zoo.load`, a `Run`, or the path of a run directory; of a run its
            RUN/model is measured and the result also written to RUN/evaluation.json. Or images that another program
            made: "data:" and what `zoo.train` takes as data, or an open image set.
        data: as for `zoo.train`; read at the model's resolution and channels.
        metrics: names, such as "fid", "kid" or "precision_recall"; `zoo.metrics.names.metric_names` has all of them.
        samples: images to generate; of given images at most as many as there are.
        features: "inception", "inception:clean", "timm:NAME", "timm:NAME@PIXELS", "clip:NAME", "pixels" or a plugin's.
        seed: of the samples, their labels, the reference's choice and of metrics that draw subsets.
        psi: truncation of the samples; 1 is none.
        batch: images whose features are computed at once; changes no value beyond rounding.
        reference: real images to compare with, chosen by `seed`; None: all.
        force: compute metrics also from fewer images than they can be trusted with.
        errors: groups of images that are left out in turn to tell the standard error of each value, which takes as many
            computations of each metric; 0: none are told but those that metrics tell themselves.
        budget: seconds; as many images are taken as fit, up to `samples` and `reference`, and metrics that need more
            are left out.
        resolution: pixels that given images and the data are read at; None: those of the first given image.
        shared: every process of the launch calls this, and they share the work; all get the same result.
        command: the command line that asks for this, kept in the receipt.
        progress: called with ("real" or "fake", images done, images in all).

    Raises:
        EvaluationError: too few images for a metric, or no weights for the features.
        UnknownName, DataError, WeightsError, ConfigError: as `zoo.load`, `zoo.data.open_images`.
    """
    from zoo.metrics.sharing import Crew

    begun = time.monotonic()
    settings = Settings(listed(metrics), samples, features, seed, psi, batch, reference, force, errors)
    wanted(settings.metrics)
    seconds = _seconds(budget)
    crew = Crew.of_launch() if shared else Crew()
    subject = opened(model_or_run, device=crew.device, resolution=resolution)
    images = subject.real(data)
    shown = evidence(subject, images, settings, progress=progress, crew=crew)
    left_out: dict[str, str] = {}
    if seconds is not None:
        settings, left_out = crew.from_lead(lambda: _within(seconds, begun, settings, shown))
        shown = evidence(subject, images, settings, progress=progress, crew=crew)
    given = {**named(model_or_run, data), "features": features, "batch": batch, "force": force, "budget": seconds}
    values, receipt = measured(shown, settings, given=given, command=command, left_out=left_out)
    evaluation = Evaluation(values, receipt)
    if subject.run is not None and crew.leads:
        evaluation.save(subject.run.directory / receipts.FILE)
    return evaluation


def _margin(error: float | None) -> str:
    return "" if error is None else f" ± {error:.2g}"


def _seconds(budget: float | None) -> float | None:
    if budget is None:
        return None
    if not isinstance(budget, int | float) or not 0 < budget < float("inf"):
        raise EvaluationError(f"budget={str(budget)[:60]} is not possible: give seconds, such as 60.")
    return float(budget)


def _within(seconds: float, begun: float, settings: Settings, shown: Evidence) -> tuple[Settings, dict[str, str]]:
    """Return the settings that fit in the time, and why metrics among those asked for do not."""
    from zoo.metrics.budget import fitting, within

    asked = wanted(settings.metrics)
    reals, fakes = fitting(shown, seconds - (time.monotonic() - begun))
    reference = None if reals == len(shown.images) else reals
    enough, left_out = within(asked, reals, fakes, shown.extractor.dimensions)
    return replace(settings, metrics=enough, samples=fakes, reference=reference), left_out


def differing(first: Evaluation, second: Evaluation) -> list[str]:
    """Return what differs between two receipts and may move values a little: device and versions, a line each."""
    a, b = ({"device": each.receipt["device"], **each.receipt["versions"]} for each in (first, second))
    return [f"{name}: {a.get(name)} and {b.get(name)}" for name in sorted(a | b) if a.get(name) != b.get(name)]
