"""How much memory this machine has, so that what cannot fit is refused before anything is allocated."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

LIMIT = Path("/sys/fs/cgroup/memory.max")      # of a container, where there is one


@cache
def installed() -> int:
    """Return the bytes of memory that this process may use at most; a very large number where nobody says."""
    most = 1 << 62
    with suppress(OSError, ValueError, AttributeError):
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):              # "max" where there is no limit
        most = min(most, int(LIMIT.read_text()))
    return most
