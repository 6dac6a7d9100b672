"""What is chosen for who does not say: the method, by how much data there is and what the weights hold; the batch."""

from __future__ import annotations

from dataclasses import replace

from zoo.data import ImageSet
from zoo.model import Model
from zoo.recipe import Recipe

FEW = 5000      # images; with fewer a critic learns them by heart (Karras 2020a, figure 1), so they are augmented
OFTEN = 1000    # times that each image is shown; up to 120 freeze_d was behind full, at 1,200 level with it
#                 (benchmarks/challenges/transfer.py): only there may its first layers be left alone
# Share of its learning rate that a generator keeps beside a critic that had to be made anew. R1 on such a critic is
# left to the user: where this was measured (benchmarks/challenges/transfer.py) the slower pace helped, R1 did not.
SLOW = 0.5
# A fine-tune is often shorter than what a recipe's batch is made for; in few steps the weights hardly leave the parent.
STEPS, LEAST = 1000, 8      # steps that a fine-tune has at least, unless that takes smaller batches than this


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


def slowed(model: Model, recipe: Recipe) -> Recipe | None:
    """Return the recipe with a slower generator where the architecture's own critic is fresh; None where it stays.

    Whoever set the players' pace already (``--add ttur``), or trains by another kind of critic, is not interfered with.
    """
    paced = any(text.partition(":")[0] == "ttur" for text in recipe.added)
    if not recipe.fresh or paced or model.critic is not None:
        return None
    return replace(recipe, phases=tuple(
        phase if set(phase.trains) & set(recipe.fresh) else replace(phase, rate=phase.rate * SLOW)
        for phase in recipe.phases
    ))  # fmt: skip


def short_batch(batch: int, kimg: float, parts: int = 1) -> int:
    """Return a recipe's batch, halved until a training of `kimg` has STEPS steps, or `LEAST` images are left.

    Args:
        parts: processes, times micro-batches: what the batch is divided among, each of which keeps LEAST images.
    """
    while batch % 2 == 0 and batch // 2 >= LEAST * parts and 1000 * kimg < STEPS * batch:
        batch //= 2
    return batch
