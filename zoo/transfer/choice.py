"""How "auto" chooses a method: by how much data there is, and by what the weights hold."""

from __future__ import annotations

from zoo.data import ImageSet
from zoo.recipe import Recipe

FEW = 5000      # images; with fewer a critic learns them by heart (Karras 2020a, figure 1), so they are augmented
OFTEN = 100     # times that each image is shown; from there on its first layers are better left alone


def choose(recipe: Recipe, images: ImageSet, kimg: float) -> tuple[str, str]:
    """Return the method that "auto" stands for, and why."""
    if not recipe.critics:
        return "full", "the architecture has no critic"
    if recipe.fresh:
        return "full", f"{', '.join(recipe.fresh)} is fresh, so there is nothing in it to freeze"
    shown = round(1000 * kimg / len(images))
    if len(images) < FEW and shown > OFTEN:
        return "freeze_d", f"each of {len(images)} images is shown {shown} times, so the critic would overfit"
    return "full", f"each of {len(images)} images is shown {shown} times, so every weight may move"
