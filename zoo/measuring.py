"""From settings and opened images to values and their receipt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.errors import EvaluationError, PluginError
from zoo.metrics.metric import GROUPS
from zoo.subjects import Subject, chosen
from zoo.versions import versions

if TYPE_CHECKING:
    import torch

    from zoo.data import ImageSet
    from zoo.metrics.evidence import Evidence, Progress
    from zoo.metrics.metric import Metric
    from zoo.metrics.sharing import Crew

METRICS = ("fid", "kid", "precision_recall")
MOST_GROUPS = 1000
MOST = 10_000_000          # images: their features must fit in memory


@dataclass(frozen=True)
class Settings:
    """What is measured and how, besides the model and the data; `zoo.evaluate` says what each means.

    Raises:
        EvaluationError: an impossible value.
    """

    metrics: tuple[str, ...] = METRICS
    samples: int = 50_000
    features: str = "inception"
    seed: int = 0
    psi: float = 1.0
    batch: int = 64
    reference: int | None = None
    force: bool = False
    errors: int = GROUPS

    def __post_init__(self) -> None:
        counts = {"samples": self.samples, "batch": self.batch}
        counts |= {} if self.reference is None else {"reference": self.reference}
        for name, count in counts.items():
            if not isinstance(count, int) or not 1 <= count <= MOST:
                raise EvaluationError(f"{name}={str(count)[:60]} is not possible: give an integer from 1 to {MOST}.")
        if not isinstance(self.errors, int) or not (self.errors == 0 or 2 <= self.errors <= MOST_GROUPS):
            given = f"errors={str(self.errors)[:60]}"
            raise EvaluationError(f"{given} is not possible: give 2 to {MOST_GROUPS} groups, or 0 for no errors.")
        if not isinstance(self.seed, int):
            raise EvaluationError(f"seed={str(self.seed)[:60]!r} is not possible: give an integer.")
        if not isinstance(self.psi, int | float) or not abs(self.psi) < float("inf"):
            given = f"psi={str(self.psi)[:60]}"
            raise EvaluationError(f"{given} is not possible: give a finite number; 1 is no truncation.")

    @classmethod
    def said(cls, receipt: Mapping[str, Any]) -> Settings:
        """Return what a receipt says."""
        given = receipt["given"]
        return cls(
            metrics=tuple(receipt["metrics"]),
            samples=receipt["fake_images"],
            features=given["features"],
            seed=receipt["seed"],
            psi=receipt["psi"],
            batch=given["batch"],
            reference=receipt["reference"],
            force=given["force"],
            errors=receipt.get("errors", 0),
        )


def listed(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return names of metrics, given as a sequence or as text with commas."""
    given = metrics.split(",") if isinstance(metrics, str) else metrics
    return tuple(str(name).strip() for name in given) if isinstance(given, Iterable) else ()


def wanted(metrics: Sequence[str]) -> dict[str, Metric]:
    """Return the metrics of these names.

    Raises:
        EvaluationError: none are given.
        UnknownName, PluginError: as `zoo.metrics.names.metric`.
    """
    from zoo.metrics import names

    if not metrics:
        raise EvaluationError(f"No metrics were given; possible: {', '.join(sorted(names.metric_names()))}.")
    return {name: names.metric(name) for name in metrics}


def evidence(
    subject: Subject,
    images: ImageSet,
    settings: Settings,
    *,
    progress: Progress | None = None,
    crew: Crew | None = None,
) -> Evidence:
    """Return what the metrics may look at. Nothing of it is computed yet."""
    from zoo.metrics.evidence import Evidence

    fakes, samples = subject.fakes(images, settings.samples, seed=settings.seed, psi=settings.psi)
    places = chosen(images, settings.reference, settings.seed)
    return Evidence(
        fakes, samples, images, places, features=settings.features, device=subject.device, seed=settings.seed,
        batch=settings.batch, progress=progress, crew=crew,
    )  # fmt: skip


def measured(
    shown: Evidence, settings: Settings, *, given: Mapping[str, Any], command: str | None, left_out: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return values and receipt.

    Args:
        given: model, data, and whatever else of the call is needed to make it again, for the receipt.
        command: the command line, for the receipt.
        left_out: name of a metric that was asked for -> why it has no values.

    Raises:
        EvaluationError: too few images for a metric.
    """
    from zoo.metrics.metric import FEATURES
    from zoo.receipts import SCHEMA

    metrics = wanted(settings.metrics)
    dimensions = shown.extractor.dimensions if looks_at_features(metrics) else 0
    real, fake = len(shown.places), shown.samples
    for name, metric in metrics.items():
        metric.check(name, real, fake, dimensions, force=settings.force)
        for each in metric.inputs:      # what is missing is missed before the work begins
            if each not in FEATURES:
                getattr(shown, each)
    asked = {
        "metrics": list(metrics),
        "left_out": dict(left_out),
        "forced": [name for name, metric in metrics.items() if metric.doubtful(real, fake, dimensions)],
        "fake_images": fake,
        "reference": settings.reference,
        "errors": settings.errors,
    }
    networks = {name: digest for metric in metrics.values() for name, digest in metric.networks().items()}
    said = {"schema_version": SCHEMA, "command": command, "given": dict(given), "networks": networks}
    values = _values(metrics, shown, settings)
    return values, {**asked, **_receipt(shown, bool(dimensions)), **said}


def looks_at_features(metrics: Mapping[str, Metric]) -> bool:
    """Return whether any of the metrics does."""
    return any({"real", "fake", "extractor", "classifier"} & set(metric.inputs) for metric in metrics.values())


def _values(metrics: Mapping[str, Metric], shown: Evidence, settings: Settings) -> dict[str, float]:
    """Return all values, the same in every process; what is not shared out is computed by the first.

    Metrics that look at no features go first: what they refuse is known before the long work.
    """
    from zoo.metrics.metric import FEATURES

    after = {name for name, metric in metrics.items() if set(FEATURES) & set(metric.inputs)}
    early = [name for name in metrics if name not in after]
    found = shown.crew.from_lead(lambda: {name: _of(metrics[name], shown, settings) for name in early})
    for side in FEATURES:
        if any(side in metrics[name].inputs for name in after):
            getattr(shown, side)
    found |= shown.crew.from_lead(lambda: {name: _of(metrics[name], shown, settings) for name in after})
    values: dict[str, float] = {}
    for name in metrics:
        if taken := sorted(set(found[name]) & set(values)):
            raise PluginError(f"Metric {name!r} gives a value named {taken[0]!r}, as another one does: leave one out.")
        values |= found[name]
    return values


def _of(metric: Metric, shown: Evidence, settings: Settings) -> dict[str, float]:
    from zoo.metrics.errors import with_std_errors

    place = shown.device if shown.device.type == "cuda" else "cpu"      # other accelerators have no float64
    given = {each: _at(place, getattr(shown, each)) for each in metric.inputs}
    return with_std_errors(metric, given, groups=settings.errors, seed=settings.seed)


def _at(place: torch.device | str, value: Any) -> Any:
    import torch

    return value.to(place) if isinstance(value, torch.Tensor) else value


def _receipt(shown: Evidence, with_features: bool) -> dict[str, Any]:
    """Return what the values depend on, besides the call's own arguments."""
    import torch

    from zoo.metrics.features import digest
    from zoo.metrics.reference import PROBE

    images, fakes, places = shown.images, shown.fakes, shown.places
    # Of which images and of pixels: features would differ by rounding between devices, and with the size of batches.
    reference = {"places": torch.tensor(places), "pixels": images.read(places[:PROBE])}
    entries = ("name", "digest", "resize", "dimensions")
    return {
        "real_images": len(places),
        "seed": fakes.seed,
        "psi": fakes.psi,
        "labels": fakes.labels,
        "model": fakes.about(),
        "data": {
            "name": images.name,
            "fingerprint": images.fingerprint,
            "resolution": images.resolution,
            "channels": images.channels,
            "skipped": len(images.skipped),
        },
        "features": {name: getattr(shown.extractor, name) for name in entries} if with_features else None,
        "reference_digest": digest(reference),
        "device": str(shown.device),
        "versions": versions(),
    }
