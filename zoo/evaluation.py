"""How good a model is: samples of fixed seeds against real images, with a receipt that lets anyone repeat it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import EvaluationError, PluginError
from zoo.noise import key
from zoo.versions import versions

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.data import ImageSet
    from zoo.metrics.features import FeatureExtractor
    from zoo.metrics.metric import Metric
    from zoo.metrics.sampling import Sampler
    from zoo.model import Model
    from zoo.training.run import Run

MOST = 10_000_000          # images: their features must fit in memory
Progress = Callable[[str, int, int], None]       # (stage: "real" or "fake", images done, images in all)


@dataclass(frozen=True)
class Evaluation:
    """Metric values, and the receipt: all that is needed to get the same values again."""

    values: dict[str, float]
    receipt: dict[str, Any]

    def __getitem__(self, name: str) -> float:
        return self.values[name]

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
        width = max(map(len, self.values), default=0)
        lines = [f"{name:<{width}}  {value:.6g}" for name, value in self.values.items()]
        receipt, features = self.receipt, self.receipt["features"]
        drawn = f"{receipt['fake_images']} samples (seed {receipt['seed']}, psi {receipt['psi']:g})"
        against = f"{receipt['real_images']} images of {receipt['data']['name']}"
        seen = f"{features['name']}, resized {features['resize']}, weights {features['digest'][:12]}"
        return "\n".join([*lines, f"{drawn} against {against}; features {seen}"])


def evaluate(
    model_or_run: Model | Run | str | Path,
    data: str | Path | ImageSet,
    *,
    metrics: Sequence[str] = ("fid", "kid", "precision_recall"),
    samples: int = 50_000,
    features: str = "inception",
    seed: int = 0,
    psi: float = 1.0,
    batch: int = 64,
    reference: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Return metric values of a model's samples against real images, with their receipt.

    Args:
        model_or_run: a model, a name for `zoo.load`, a `Run`, or the path of a run directory; of a run its
            RUN/model is measured and the result also written to RUN/evaluation.json.
        data: as for `zoo.train`; read at the model's resolution and channels.
        metrics: names; "fid", "kid", "precision_recall", "density_coverage", "ndb", "vendi" or a plugin's.
        samples: images to generate.
        features: "inception", "timm:NAME", "timm:NAME@PIXELS", "pixels" or a plugin's.
        seed: of the samples, their labels, the reference's choice and of metrics that draw subsets.
        psi: truncation of the samples; 1 is none.
        batch: images whose features are computed at once; changes no value beyond rounding.
        reference: real images to compare with, chosen by `seed`; None: all.
        force: compute metrics also from fewer images than they can be trusted with.
        progress: called with ("real" or "fake", images done, images in all).

    Raises:
        EvaluationError: too few images for a metric, or no weights for the features.
        UnknownName, DataError, WeightsError, ConfigError: as `zoo.load`, `zoo.data.open_images`.
    """
    from zoo.data import open_images
    from zoo.metrics import names
    from zoo.metrics.reference import reference_features
    from zoo.metrics.sampling import Sampler

    chosen = _chosen(metrics)
    _check_numbers(seed, psi, samples=samples, batch=batch, reference=1 if reference is None else reference)
    model, run = _opened(model_or_run)
    images = open_images(data, resolution=model.config.resolution, channels=model.config.channels)
    indices = _indices(images, reference, seed)
    extractor = names.extractor(features, model.device)
    for name, metric in chosen.items():
        metric.check(name, len(indices), samples, extractor.dimensions, force=force)

    tell = progress or (lambda stage, done, total: None)
    real = reference_features(images, indices, extractor, batch=batch, progress=lambda n: tell("real", n, len(indices)))
    sampler = Sampler.of(model, images, seed=seed, psi=psi)
    fake = sampler.features(samples, extractor, batch=batch, progress=lambda n: tell("fake", n, samples))
    doubtful = [name for name, metric in chosen.items() if metric.doubtful(len(real), samples, extractor.dimensions)]
    asked = {"metrics": list(chosen), "forced": doubtful, "fake_images": samples, "reference": reference}
    receipt = {**asked, **_receipt(sampler, images, extractor, real)}
    evaluation = Evaluation(_measured(chosen, real, fake, extractor, seed), receipt)
    if run is not None:
        evaluation.save(run.directory / "evaluation.json")
    return evaluation


def _chosen(metrics: Sequence[str]) -> dict[str, Metric]:
    from zoo.metrics import names

    given = metrics.split(",") if isinstance(metrics, str) else metrics
    wanted = [str(name).strip() for name in given] if isinstance(given, Iterable) else []
    if not wanted:
        raise EvaluationError(f"No metrics were given; possible: {', '.join(sorted(names.metric_names()))}.")
    return {name: names.metric(name) for name in wanted}


def _check_numbers(seed: int, psi: float, **counts: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or not 1 <= count <= MOST:
            raise EvaluationError(f"{name}={str(count)[:60]} is not possible: give an integer from 1 to {MOST}.")
    if not isinstance(seed, int):
        raise EvaluationError(f"seed={str(seed)[:60]!r} is not possible: give an integer.")
    if not isinstance(psi, int | float) or not abs(psi) < float("inf"):
        raise EvaluationError(f"psi={str(psi)[:60]} is not possible: give a finite number; 1 is no truncation.")


def _opened(model_or_run: Model | Run | str | Path) -> tuple[Model, Run | None]:
    import torch

    from zoo.loading import load
    from zoo.model import Model
    from zoo.training.run import Run

    if isinstance(model_or_run, Model):
        return model_or_run, None
    # Thousands of samples and features: on a GPU where there is one. A model that is given stays where it is.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(model_or_run, Run):
        return model_or_run.model.to(device), model_or_run
    if not isinstance(model_or_run, str | Path):
        raise EvaluationError(f"{type(model_or_run).__name__} is no model, run, name or path: give one of these.")
    if os.path.isfile(os.path.join(model_or_run, "run.json")):
        run = Run.open(model_or_run)
        return run.model.to(device), run
    return load(f"dir:{model_or_run}" if isinstance(model_or_run, Path) else model_or_run, device=device), None


def _indices(images: ImageSet, reference: int | None, seed: int) -> list[int]:
    """Return the places of the real images to compare with: all, or `reference` of them chosen by the seed."""
    import torch

    if reference is None:
        return list(range(len(images)))
    if reference > len(images):
        raise EvaluationError(f"reference={reference}, but {images.name} has {len(images)} images: give at most that.")
    chance = torch.Generator().manual_seed(key("reference", seed))
    chosen: list[int] = torch.randperm(len(images), generator=chance)[:reference].sort().values.tolist()
    return chosen


def _measured(
    chosen: Mapping[str, Metric], real: Tensor, fake: Tensor, extractor: FeatureExtractor, seed: int
) -> dict[str, float]:
    place = extractor.device if extractor.device.type == "cuda" else "cpu"      # other accelerators have no float64
    values: dict[str, float] = {}
    for name, metric in chosen.items():
        found = metric(real.to(place), fake.to(place), seed=seed)
        if taken := sorted(set(found) & set(values)):
            raise PluginError(f"Metric {name!r} gives a value named {taken[0]!r}, as another one does: leave one out.")
        values |= found
    return values


def _receipt(sampler: Sampler, images: ImageSet, extractor: FeatureExtractor, real: Tensor) -> dict[str, Any]:
    """Return what the values depend on, besides the call's own arguments."""
    from zoo.metrics.features import digest

    model = sampler.model
    return {
        "real_images": len(real),
        "seed": sampler.seed,
        "psi": sampler.psi,
        "labels": sampler.labels,
        "model": {
            "architecture": model.architecture,
            "origin": dict(model.origin),
            "config": model.config.model_dump(mode="json"),
            "digest": digest(model.state_dict()),
        },
        "data": {
            "name": images.name,
            "fingerprint": images.fingerprint,
            "resolution": images.resolution,
            "channels": images.channels,
            "skipped": len(images.skipped),
        },
        "features": {name: getattr(extractor, name) for name in ("name", "digest", "resize", "dimensions")},
        "reference_digest": digest({"features": real}),
        "device": str(extractor.device),
        "versions": versions(),
    }
