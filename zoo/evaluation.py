"""How good a model is: samples of fixed seeds against real images, with a receipt that lets anyone repeat it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo import receipts
from zoo.errors import EvaluationError, PluginError, ZooError
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
ROUNDING = 1e-6            # relative difference of values that are the same but for rounding
T = TypeVar("T")
Progress = Callable[[str, int, int], None]       # (stage: "real" or "fake", images done, images in all)


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
    command: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Return metric values of a model's samples against real images, with their receipt.

    Args:
        model_or_run: a model, a name for `zoo.load`, a `Run`, or the path of a run directory; of a run its
            RUN/model is measured and the result also written to RUN/evaluation.json.
        data: as for `zoo.train`; read at the model's resolution and channels.
        metrics: names; "fid", "fid_infinity", "kid", "cmmd", "precision_recall", "density_coverage", "mind", "ndb",
            "vendi" or a plugin's.
        samples: images to generate.
        features: "inception", "timm:NAME", "timm:NAME@PIXELS", "pixels" or a plugin's.
        seed: of the samples, their labels, the reference's choice and of metrics that draw subsets.
        psi: truncation of the samples; 1 is none.
        batch: images whose features are computed at once; changes no value beyond rounding.
        reference: real images to compare with, chosen by `seed`; None: all.
        force: compute metrics also from fewer images than they can be trusted with.
        command: the command line that asks for this, kept in the receipt.
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
    given = {**_places(model_or_run, data), "features": features, "batch": batch, "force": force}
    said = {"schema_version": receipts.SCHEMA, "command": command, "given": given}
    receipt = {**asked, **_receipt(sampler, images, extractor, indices), **said}
    evaluation = Evaluation(_measured(chosen, real, fake, extractor, seed), receipt)
    if run is not None:
        evaluation.save(run.directory / receipts.FILE)
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


def fastest_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu": thousands of samples and features take their time."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _opened(model_or_run: Model | Run | str | Path, device: str | None = None) -> tuple[Model, Run | None]:
    from zoo.loading import load
    from zoo.model import Model
    from zoo.training.run import Run

    if isinstance(model_or_run, Model):
        return model_or_run, None      # it stays where it is
    device = device or fastest_device()
    if isinstance(model_or_run, Run):
        return model_or_run.model.to(device), model_or_run
    if not isinstance(model_or_run, str | Path):
        raise EvaluationError(f"{type(model_or_run).__name__} is no model, run, name or path: give one of these.")
    if os.path.isfile(os.path.join(model_or_run, "run.json")):
        run = Run.open(model_or_run)
        return run.model.to(device), run
    return load(f"dir:{model_or_run}" if isinstance(model_or_run, Path) else model_or_run, device=device), None


def _places(model_or_run: Model | Run | str | Path, data: str | Path | ImageSet) -> dict[str, str | None]:
    """Return model and data as text that finds them again; None for what was given as an object."""
    from zoo.training.run import Run

    model = model_or_run.directory if isinstance(model_or_run, Run) else model_or_run
    if isinstance(model, Path):
        model = str(model) if os.path.isfile(model / "run.json") else f"dir:{model}"
    if isinstance(data, Path):      # a path of one word is a folder, though the word may name data elsewhere
        data = str(data) if data.is_absolute() else os.path.join(".", data)
    return {"model": model if isinstance(model, str) else None, "data": data if isinstance(data, str) else None}


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


def _receipt(
    sampler: Sampler, images: ImageSet, extractor: FeatureExtractor, indices: Sequence[int]
) -> dict[str, Any]:
    """Return what the values depend on, besides the call's own arguments."""
    import torch

    from zoo.metrics.features import digest
    from zoo.metrics.reference import PROBE

    model = sampler.model
    # Of which images and of pixels: features would differ by rounding between devices, and with the size of batches.
    reference = {"places": torch.tensor(indices), "pixels": images.read(indices[:PROBE])}
    return {
        "real_images": len(indices),
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
        "reference_digest": digest(reference),
        "device": str(extractor.device),
        "versions": versions(),
    }


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


def differing(first: Evaluation, second: Evaluation) -> list[str]:
    """Return what differs between two receipts and may move values a little: device and versions, a line each."""
    a, b = ({"device": each.receipt["device"], **each.receipt["versions"]} for each in (first, second))
    return [f"{name}: {a.get(name)} and {b.get(name)}" for name in sorted(a | b) if a.get(name) != b.get(name)]


def repeat(
    path: str | Path,
    model_or_run: Model | Run | str | Path | None = None,
    data: str | Path | ImageSet | None = None,
    *,
    progress: Progress | None = None,
) -> Repetition:
    """Evaluate again exactly as a receipt says, and return both results. Nothing is written.

    Args:
        path: an evaluation.json, or a run directory that holds one.
        model_or_run, data: where these are now; None: where the receipt says.
        progress: as for `evaluate`.

    Raises:
        EvaluationError: the receipt cannot be read; or model, data or features are not those that it is about.
        UnknownName, DataError, WeightsError: as `evaluate`.
    """
    from zoo.data import open_images
    from zoo.metrics import names
    from zoo.storage import digest

    first = Evaluation.open(path)
    said, given = first.receipt, first.receipt["given"]
    device = "cpu" if said["device"] == "cpu" else None      # another device is taken as it is found
    model, _ = _found(path, "model", model_or_run, given, partial(_opened, device=device))
    _same(path, "weights (sha256)", digest(model.state_dict()), said["model"]["digest"])
    config = model.config
    opened = partial(open_images, resolution=config.resolution, channels=config.channels)
    images = _found(path, "data", data, given, opened)
    _same(path, "data (fingerprint)", images.fingerprint, said["data"]["fingerprint"])
    extractor = names.extractor(given["features"], model.device)
    _same(path, "features (sha256 of their weights)", extractor.digest, said["features"]["digest"])
    _same(path, "features (resize)", extractor.resize, said["features"]["resize"])
    again = evaluate(
        model,
        images,
        metrics=said["metrics"],
        samples=said["fake_images"],
        features=given["features"],
        seed=said["seed"],
        psi=said["psi"],
        batch=given["batch"],
        reference=said["reference"],
        force=given["force"],
        progress=progress,
    )
    return Repetition(first, again)


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
