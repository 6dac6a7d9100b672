"""Lengths of time as they are typed: 60s, 5m, 1h, or plain seconds."""

from __future__ import annotations

import re

from zoo.errors import ConfigError

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float:
    """Return the seconds that a length of time such as 90, 60s, 1.5m or 1h is.

    Raises:
        ConfigError: it is none, or not longer than zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)", text.strip())
    length = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not 0 < length < float("inf"):
        raise ConfigError(f"{text[:60]!r} is no length of time: write 60s, 5m or 1h.")
    return length
