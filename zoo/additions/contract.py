"""What an addition is: a named change of a recipe that a user asks for with ``--add NAME:option=value``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from zoo.recipe import Recipe

Stage = Literal["critic", "loss", "term", "wrapper", "schedule"]
STAGES: tuple[Stage, ...] = ("critic", "loss", "term", "wrapper", "schedule")      # the order in which they are applied

# Types for the options of an addition.
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=1000)]


@dataclass(frozen=True)
class Addition:
    """A change of any recipe: a loss, a term, what wraps a turn.

    `apply` is a function (model, recipe, *, option: type = default, ...) -> recipe. Its keyword-only parameters are the
    options that a user may set, checked by their annotations; it may change the model too, such as by giving it another
    critic. It raises ConfigError or Unsupported, in one line, for a model or recipe that it does not fit.
    """

    summary: str                 # one line: what it does
    failure: str                 # what goes wrong without it, in a few words
    paper: str                   # authors, year, arXiv number
    apply: Callable[..., Recipe]
    stage: Stage = "term"        # of several additions those of an earlier stage come first, whatever the user's order
