"""What the networks of a run make, drawn for a page: each picture, or the line that says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.documents import mapping
from zoo.errors import ZooError
from zoo.pictures import class_grid, interpolation_strip, neighbour_sheet, real_and_fake, sample_grid, truncation_sweep
from zoo.pictures.classes import named
from zoo.reporting.embedding import Picture, embedded
from zoo.training.memory import give_back, ran_out

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.data import ImageSet
    from zoo.metrics.features import FeatureExtractor
    from zoo.model import Model
    from zoo.pictures.samples import Progress

SEED = 1              # of samples: not those of the grids of the training, which are drawn from 0
SIDE = 32             # images of each side, real and fake
ROWS, NEAREST = 8, 4  # samples, and images that each is most like


@dataclass(frozen=True)
class Shown:
    """A picture under its title, or why it is missing."""

    title: str
    picture: Picture | None
    note: str = ""


def alone(model: Model, settings: Mapping[str, Any], samples: int, progress: Progress | None) -> Iterator[Shown]:
    """Yield what shows a model by itself.

    Args:
        settings: what run.json says, for the names of the classes.
        samples: how many are shown.
        progress: called with (which images, how many are done, how many there are).
    """
    told = f"{samples} samples that nobody picked (seed {SEED}), without truncation."
    yield _drawn("Samples", told, lambda: sample_grid(model, n=samples, seed=SEED))
    told = "The same latents in each column. From above, psi trades typical images for variety; 1 is no truncation."
    yield _drawn("Truncation", told, lambda: truncation_sweep(model, seed=SEED, progress=progress))
    told = "From one latent to another in each row. A model that has learned a space changes little by little."
    yield _drawn("Interpolation", told, lambda: interpolation_strip(model, seed=SEED, progress=progress))
    if model.config.num_classes:
        names = named(settings.get("data"), model.config.num_classes)
        told = "The same latents in each column, of another class in each row."
        yield _drawn("Classes", told, lambda: class_grid(model, seed=SEED, names=names, progress=progress))


def beside(
    model: Model,
    images: ImageSet,
    extractor: FeatureExtractor,
    settings: Mapping[str, Any],
    samples: int,
    progress: Progress | None,
) -> Iterator[Shown]:
    """Yield what shows samples of a model beside images.

    Args:
        extractor: of the features by which images are like each other.
        samples: among how many those are looked for that an image is most like.
        settings, progress: as of `alone`.
    """
    trained = mapping(settings.get("data")).get("fingerprint") == images.fingerprint
    other = "" if trained else " These are not the images that the run was trained on, or they have changed."
    n = min(SIDE, len(images))
    told = f"{n} of each, chosen by chance.{other}"
    yield _drawn("Real and fake", told, lambda: real_and_fake(model, images, n=n, seed=SEED, progress=progress))
    rows, k = min(ROWS, samples), min(NEAREST, len(images))
    told = (
        f"The {rows} of {samples} samples that are nearest to an image, and their {k} nearest images with how far off "
        f"these are, by features of {extractor.name}. If the model has copied any, it shows here.{other}"
    )
    yield _drawn("Nearest neighbours", told, lambda: neighbour_sheet(
        model, images, extractor, n=rows, k=k, samples=samples, seed=SEED, progress=progress
    ))  # fmt: skip


def _drawn(title: str, caption: str, draw: Callable[[], Image]) -> Shown:
    try:
        return Shown(title, embedded(draw(), caption))
    except ZooError as error:
        return Shown(title, None, str(error))
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        give_back()
        return Shown(title, None, "There is no memory for this picture.")
