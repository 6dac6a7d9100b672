"""How likely changes of images are: steered by how far the critic overfits, or fixed, and what a recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from zoo.errors import ConfigError
from zoo.recipe import Recipe
from zoo.schedules import scheduled, share
from zoo.steering import Steered, number


class Probability(Protocol):
    """The chance that a change happens to an image, and what moves it."""

    @property
    def p(self) -> float: ...

    @property
    def deaf(self) -> bool:
        """Whether it waits for something to move by, and nothing ever came."""

    def hear(self, watched: Mapping[str, float]) -> None: ...

    def adapt(self, images: int) -> None: ...

    def watch(self) -> dict[str, float]: ...

    def state(self) -> dict[str, float | int]: ...

    def restore(self, state: Mapping[str, object]) -> None: ...


def probability(recipe: Recipe) -> Probability:
    """Return ADA's, as the recipe asks for.

    Raises:
        ConfigError: a ramp for a p that is steered, or a fixed p that changes nothing.
    """
    if recipe.ada_target is None and not recipe.ada_p:
        raise ConfigError("ada_p=0 and ada_target=none: no image would ever change; give ada_p above 0, or a target.")
    if recipe.ada_target is not None and recipe.ada_ramp_kimg:
        raise ConfigError(
            f"ada_ramp_kimg={recipe.ada_ramp_kimg:g} is for a p that is not steered: give ada_target=none too, or "
            "leave it out."
        )
    if recipe.ada_target is None:
        return Fixed(recipe.ada_p, recipe.ada_ramp_kimg)
    return Steered(recipe.ada_p, recipe.ada_target, recipe.ada_kimg)


def changed_share(recipe: Recipe) -> Fixed | None:
    """Return DiffAugment's, None where every image is changed all along.

    Raises:
        ConfigError: no image would ever change.
    """
    if not recipe.augment_p:
        raise ConfigError("augment_p=0: no image would ever change; give augment_p above 0, or leave augment out.")
    if recipe.augment_p == 1 and not recipe.augment_ramp_kimg:
        return None
    return Fixed(recipe.augment_p, recipe.augment_ramp_kimg)


class Fixed:
    """p is what it is told to be, reached in a straight line from 0 over a ramp of so many thousand images."""

    deaf = False

    def __init__(self, p: float, ramp_kimg: float):
        self._final, self._length, self._images = p, ramp_kimg * 1000, 0

    @property
    def p(self) -> float:
        return scheduled(0.0, self._final, share(self._images, self._length), "linear")

    def hear(self, watched: Mapping[str, float]) -> None:
        """Nothing that a critic does moves it."""

    def adapt(self, images: int) -> None:
        self._images += images

    def watch(self) -> dict[str, float]:
        return {"p": self.p} if self._length else {}

    def state(self) -> dict[str, float | int]:
        return {"images": self._images}

    def restore(self, state: Mapping[str, object]) -> None:
        self._images = int(number(state, "images"))
