"""How likely ADA's changes are: steered by how far the critic overfits (Karras et al., 2020a, section 3), or fixed."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Protocol

from zoo.errors import ConfigError, RunError
from zoo.recipe import Recipe

INTERVAL = 4                # steps from one move of p to the next
HEARD = "sign_real"         # r_t, the mean sign of logits on reals: near 0 for a critic at a loss, 1 if it overfits


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
    """Return what the recipe asks for.

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
    return Fixed(recipe) if recipe.ada_target is None else Steered(recipe, recipe.ada_target)


class Steered:
    """p rises while the mean sign of logits on reals is above its target, and falls while it is below."""

    def __init__(self, recipe: Recipe, target: float):
        self.p, self.deaf = recipe.ada_p, False
        self._target, self._length = target, recipe.ada_kimg * 1000
        self._sum, self._turns, self._images, self._steps = 0.0, 0, 0, 0      # since p last moved
        self._sign: float | None = None                                       # the mean that it was moved by

    def hear(self, watched: Mapping[str, float]) -> None:
        """Take a turn's watched means; one that is not finite says nothing."""
        sign = watched.get(HEARD)
        if sign is not None and isfinite(sign):
            self._sum, self._turns, self.deaf = self._sum + sign, self._turns + 1, False

    def adapt(self, images: int) -> None:
        """Hear of a step; each `INTERVAL`-th moves p by the share that the images since then have of `ada_kimg`."""
        self._images, self._steps = self._images + images, self._steps + 1
        if self._steps < INTERVAL:
            return
        if self._turns:
            self._sign = self._sum / self._turns
            direction = (self._sign > self._target) - (self._sign < self._target)
            self.p = min(1.0, max(0.0, self.p + direction * self._images / self._length))
        self.deaf = self._sign is None
        self._sum, self._turns, self._images, self._steps = 0.0, 0, 0, 0

    def watch(self) -> dict[str, float]:
        return {"p": self.p} if self._sign is None else {"p": self.p, HEARD: self._sign}

    def state(self) -> dict[str, float | int]:
        waiting = {"sum": self._sum, "turns": self._turns, "images": self._images, "steps": self._steps}
        return {**self.watch(), **waiting}

    def restore(self, state: Mapping[str, object]) -> None:
        self.p, self._sum = _number(state, "p"), _number(state, "sum")
        self._turns, self._images, self._steps = (int(_number(state, name)) for name in ("turns", "images", "steps"))
        self._sign = _number(state, HEARD) if HEARD in state else None


class Fixed:
    """p is what the recipe says, reached in a straight line from 0 if it gives a ramp."""

    deaf = False

    def __init__(self, recipe: Recipe):
        self._final, self._length, self._images = recipe.ada_p, recipe.ada_ramp_kimg * 1000, 0

    @property
    def p(self) -> float:
        return self._final * min(1.0, self._images / self._length) if self._length else self._final

    def hear(self, watched: Mapping[str, float]) -> None:
        """Nothing that a critic does moves it."""

    def adapt(self, images: int) -> None:
        self._images += images

    def watch(self) -> dict[str, float]:
        return {"p": self.p} if self._length else {}

    def state(self) -> dict[str, float | int]:
        return {"images": self._images}

    def restore(self, state: Mapping[str, object]) -> None:
        self._images = int(_number(state, "images"))


def _number(state: Mapping[str, object], name: str) -> float:
    value = state.get(name)
    if not isinstance(value, int | float):
        raise RunError(f"The checkpoint does not say where ADA stood (no {name!r}): it is of a training without it.")
    return value
