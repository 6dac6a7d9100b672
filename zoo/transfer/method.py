"""What a transfer method is: a function from a model and its recipe to a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zoo.model import Model
from zoo.recipe import Recipe


@dataclass(frozen=True)
class Method:
    """One transfer method."""

    summary: str
    paper: str
    apply: Callable[[Model, Recipe], Recipe]
