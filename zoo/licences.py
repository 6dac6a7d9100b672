"""Licences as they are written in weights entries and cards."""

from __future__ import annotations

import re


def non_commercial(licence: str) -> bool:
    """Return whether the words of a licence say that commercial use is not allowed."""
    return re.search(r"\bnc\b|non-?commercial", licence, re.IGNORECASE) is not None
