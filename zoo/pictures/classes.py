"""What a model makes of each of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from zoo.documents import mapping
from zoo.errors import ConfigError, Unsupported
from zoo.pictures.lettering import lettered
from zoo.pictures.samples import Progress, count, images_of, latents

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.model import Model

MOST = 20      # classes in a picture


def class_grid(
    model: Model,
    *,
    n: int = 8,
    seed: int = 0,
    psi: float = 1.0,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Image:
    """Return one row for each class, under its name, of the same latents in each column.

    Of more than 20 classes, 20 at equal distances are shown.

    Args:
        n: columns.
        names: of all classes; None: those of the data that the model was trained on, if its weights tell them.
        progress: called with ("class", images done, images in all).

    Raises:
        Unsupported: the model has no classes.
        ConfigError: another number of names than of classes, or n is not 1 to 1000.
        WeightsError: the model makes values that are not finite.
    """
    classes = model.config.num_classes
    if not classes:
        raise Unsupported(f"{model.architecture or 'This model'} was made without classes, so no picture shows them.")
    names = _known(model) if names is None else names
    if len(names) != classes:
        raise ConfigError(f"{len(names)} names for {classes} classes: give one for each.")
    n = count("n", n)
    z = latents(model, n, seed, psi)
    shown = torch.linspace(0, classes - 1, min(classes, MOST)).round().long().tolist()
    rows = []
    for done, index in enumerate(shown, 1):
        rows.append(images_of(model, z, [index] * n, seed=seed, psi=psi))
        if progress is not None:
            progress("class", done * n, len(shown) * n)
    return lettered(torch.cat(rows), n, rows=[str(names[index]) for index in shown])


def _known(model: Model) -> Sequence[str]:
    """Return the names that the weights tell, or numbers."""
    classes = model.config.num_classes
    return named(model.origin.get("data"), classes) or [f"class {index}" for index in range(classes)]


def named(data: object, classes: int) -> list[str] | None:
    """Return the names of so many classes that a document's entry on data tells, or None where it tells none such."""
    told = mapping(data).get("classes")
    return [str(name) for name in told] if isinstance(told, list) and len(told) == classes else None
