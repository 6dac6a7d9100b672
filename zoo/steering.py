"""A probability that is steered by how far a critic overfits (Karras et al., 2020a, arXiv:2006.06676, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from zoo.errors import RunError

INTERVAL = 4                # steps from one move of p to the next
HEARD = "sign_real"         # r_t, the mean sign of logits on reals: near 0 for a critic at a loss, 1 if it overfits


class Steered:
    """p rises while the mean sign of logits on reals is above its target, and falls while it is below.

    Args:
        p: as training begins.
        kimg: thousand images in which it can go from 0 to 1.
    """

    def __init__(self, p: float, target: float, kimg: float):
        self.p, self.deaf = p, False      # deaf: it waits for something to move by, and nothing ever came
        self._target, self._length = target, kimg * 1000
        self._sum, self._turns, self._images, self._steps = 0.0, 0, 0, 0      # since p last moved
        self._sign: float | None = None                                       # the mean that it was moved by

    def hear(self, watched: Mapping[str, float]) -> None:
        """Take a turn's watched means; one that is not finite says nothing."""
        sign = watched.get(HEARD)
        if sign is not None and isfinite(sign):
            self._sum, self._turns, self.deaf = self._sum + sign, self._turns + 1, False

    def adapt(self, images: int) -> None:
        """Hear of a step; each `INTERVAL`-th moves p by the share that the images since then have of `kimg`."""
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
        self.p, self._sum = number(state, "p"), number(state, "sum")
        self._turns, self._images, self._steps = (int(number(state, name)) for name in ("turns", "images", "steps"))
        self._sign = number(state, HEARD) if HEARD in state else None


def number(state: Mapping[str, object], name: str) -> float:
    """Return a number of what a training kept.

    Raises:
        RunError: it is not there.
    """
    value = state.get(name)
    if not isinstance(value, int | float):
        raise RunError(
            f"The checkpoint does not say where the augmentation stood (no {name!r}): it is of a training without it."
        )
    return value
