"""When things happen in a training: counted in images shown, never in seconds, so that a resumed one does the same."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """When things happen, in thousand images; none of it changes what is learnt."""

    kimg: float
    tick: float
    sample: float
    checkpoint: float
    keep: int

    def due(self, every: float, step: int, batch: int) -> bool:
        """Return whether the step that ends now is the first at or past a multiple of `every` kimg."""
        return int(step * batch / 1000 / every) > int((step - 1) * batch / 1000 / every)
