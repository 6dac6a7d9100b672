"""Which numbers are a bad sign, and why; each is called by its name once it has lasted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Reading = dict[str, float]


@dataclass(frozen=True)
class Sign:
    """One way in which a training goes wrong."""

    name: str
    lasting: int
    curable: bool
    seen: Callable[[Sequence[Reading]], str]


SIGNS: tuple[Sign, ...] = ()
