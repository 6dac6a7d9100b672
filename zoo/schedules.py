"""Schedules: values that depend on how far a training is, as pure functions, so that a resumed one meets the same."""

from __future__ import annotations

from math import cos, pi
from typing import Literal

Kind = Literal["constant", "linear", "cosine"]


def scheduled(first: float, last: float, progress: float, kind: Kind = "cosine") -> float:
    """Return a value on its way from the first to the last.

    Args:
        progress: share of the way that is done; below 0 and above 1 the ends hold.
        kind: "constant" stays at the first, "linear" is a straight line, "cosine" half a cosine (Loshchilov and Hutter,
            2017, arXiv:1608.03983, eq. 5, without restarts).
    """
    if kind == "constant" or progress <= 0:
        return first
    if progress >= 1:
        return last
    left = 1 - progress if kind == "linear" else 0.5 * (1 + cos(pi * progress))
    return last + (first - last) * left


def share(done: float, length: float) -> float:
    """Return how much of something long is done, 0 to 1; what has no length is done from the start."""
    return min(1.0, max(0.0, done / length)) if length > 0 else 1.0
