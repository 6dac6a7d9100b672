"""How findings are put into words."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

SHOWN = 3  # examples in one line; all of them are in the JSON document


def some(names: Iterable[str]) -> str:
    """Return the first few names, and how many more there are."""
    every = list(names)
    more = f", and {len(every) - SHOWN:,} more" if len(every) > SHOWN else ""
    return ", ".join(islice(every, SHOWN)) + more


def share(count: int, total: int, thing: str = "image") -> str:
    """Return ``1 of 20 images is`` or ``3 of 20 images are``."""
    return f"{count:,} of {counted(total, thing)} {'is' if count == 1 else 'are'}"


def counted(count: int, one: str, several: str = "") -> str:
    """Return ``1 image`` or ``2,000 images``."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"
