"""What one look gives, and how often a training is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

Reading = dict[str, float]      # of one look: step, images, progress, and all numbers that were to be had

SAMPLES = 256        # images drawn for each look
EVERY = 10           # images shown between two looks, for each that is drawn: what keeps the cost low


@dataclass(frozen=True)
class Seen:
    """What a look at a model finds out."""

    numbers: dict[str, float] = field(default_factory=dict)
    middle: tuple[float, ...] = ()      # where the samples' mean lies; empty where it is not known
