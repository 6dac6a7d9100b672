"""The table of transfer methods."""

from __future__ import annotations

from zoo.model import Model
from zoo.recipe import Recipe
from zoo.transfer.method import Method
from zoo.transfer.still import FREEZE_D


def full(model: Model, recipe: Recipe) -> Recipe:
    """Move every weight."""
    return recipe


METHODS: dict[str, Method] = {
    "full": Method("train every weight on", "Wang et al., 2018, arXiv:1805.01677", full),
    "freeze_d": FREEZE_D,
}
