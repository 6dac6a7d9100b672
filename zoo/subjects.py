"""What is evaluated: a model, the model of a run, or images that another program made."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from zoo.errors import EvaluationError, RunError

if TYPE_CHECKING:
    import torch

    from zoo.data import ImageSet
    from zoo.metrics.sampling import Fakes
    from zoo.model import Model
    from zoo.training.run import Run

Given: TypeAlias = "Model | Run | ImageSet | str | Path"
IMAGES = "data:"      # begins the name of images that are judged themselves


@dataclass(frozen=True)
class Subject:
    """What is evaluated, opened: exactly one of `model` and `images`."""

    model: Model | None
    images: ImageSet | None
    run: Run | None              # that the model is of
    device: torch.device         # where features are computed

    def real(self, data: str | Path | ImageSet) -> ImageSet:
        """Return the real images, read at the resolution and channels of what is evaluated."""
        from zoo.data import open_images

        of: Any = self.images if self.model is None else self.model.config
        return open_images(data, resolution=of.resolution, channels=of.channels)

    def fakes(self, real: ImageSet, samples: int, *, seed: int, psi: float) -> tuple[Fakes, int]:
        """Return the fakes, and how many of them: of given images at most as many as there are."""
        from zoo.metrics.sampling import GivenImages, Sampler

        if self.model is not None:
            return Sampler.of(self.model, real, seed=seed, psi=psi, unseen=self._unseen(real)), samples
        assert self.images is not None
        if psi != 1:
            raise EvaluationError(f"psi={psi:g} truncates what a model makes, but images were given: leave it out.")
        samples = min(samples, len(self.images))
        return GivenImages(self.images, chosen(self.images, samples, seed, "fakes"), seed=seed), samples

    def _unseen(self, real: ImageSet) -> list[int]:
        """Return the places of the real images that the run kept out of its training, if they are its data."""
        from zoo.watchdog.holdout import kept_out

        settings: Any = {}
        if self.run is not None:
            with suppress(RunError):      # a run without readable settings can be measured all the same
                settings = self.run.settings
        data, count = settings.get("data"), settings.get("held_out", 0)
        if not isinstance(data, dict) or not isinstance(count, int) or not 0 < count < len(real):
            return []
        if (data.get("fingerprint"), data.get("images")) != (real.fingerprint, len(real)):
            return []
        places: list[int] = kept_out(len(real), count).tolist()
        return places


def opened(given: Given, *, device: str | torch.device | None = None, resolution: int | None = None) -> Subject:
    """Return what is named, opened on a device; a model object stays where it is.

    Raises:
        EvaluationError: it is none of these, or a resolution for a model, which has its own.
        UnknownName, DataError, WeightsError, RunError: as `zoo.load`, `zoo.data.open_images`.
    """
    import torch

    from zoo.data import ImageSet
    from zoo.loading import load
    from zoo.model import Model
    from zoo.training.run import Run

    place = torch.device(device or fastest_device())
    if isinstance(given, ImageSet):
        return Subject(None, given, None, place)
    if isinstance(given, str) and given.startswith(IMAGES):
        return Subject(None, _images(given.removeprefix(IMAGES), resolution), None, place)
    if resolution is not None:
        raise EvaluationError(f"resolution={resolution} is for given images; a model has its own: leave it out.")
    if isinstance(given, Model):
        return Subject(given, None, None, given.device)
    run = given if isinstance(given, Run) else _run(given)
    if run is not None:
        return Subject(run.model.to(place), None, run, place)
    name = f"dir:{given}" if isinstance(given, Path) else str(given)
    return Subject(load(name, device=str(place)), None, None, place)


def fastest_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu": thousands of samples and features take their time."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def named(given: Given, data: str | Path | ImageSet) -> dict[str, str | None]:
    """Return both as text that finds them again; None for what was given as an object."""
    from zoo.training.run import Run

    model = given.directory if isinstance(given, Run) else given
    if isinstance(model, Path):
        model = str(model) if os.path.isfile(model / "run.json") else f"dir:{model}"
    if isinstance(data, Path):      # a path of one word is a folder, though the word may name data elsewhere
        data = str(data) if data.is_absolute() else os.path.join(".", data)
    return {"model": model if isinstance(model, str) else None, "data": data if isinstance(data, str) else None}


def chosen(images: ImageSet, count: int | None, seed: int, what: str = "reference") -> list[int]:
    """Return the places of `count` images chosen by the seed, in their order; all for None.

    Raises:
        EvaluationError: there are fewer.
    """
    import torch

    from zoo.noise import key

    if count is None or count == len(images):
        return list(range(len(images)))
    if count > len(images):
        raise EvaluationError(f"{what}={count}, but {images.name} has {len(images)} images: give at most that.")
    chance = torch.Generator().manual_seed(key(what, seed))
    places: list[int] = torch.randperm(len(images), generator=chance)[:count].sort().values.tolist()
    return places


def _run(given: Any) -> Run | None:
    """Return the run in this directory, or None where it is none but may be a name.

    Raises:
        EvaluationError: it is neither text nor a path.
    """
    from zoo.training.run import Run

    if not isinstance(given, str | Path):
        kind = type(given).__name__
        raise EvaluationError(f"{kind} is no model, run, name or path: give one of these, or '{IMAGES}FOLDER'.")
    return Run.open(given) if os.path.isfile(os.path.join(given, "run.json")) else None


def _images(spec: str, resolution: int | None) -> ImageSet:
    from zoo.data import open_images, side

    return open_images(spec, resolution=resolution or side(spec), channels=3)
