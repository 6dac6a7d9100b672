"""Where zoo keeps what it can make again: converted weights, and features of real images."""

from __future__ import annotations

import os
from pathlib import Path


def zoo_home() -> Path:
    """Return the folder of zoo's own cache: $ZOO_HOME, or ~/.cache/zoo."""
    return Path(os.environ.get("ZOO_HOME") or Path.home() / ".cache" / "zoo")
