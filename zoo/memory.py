"""How much memory this machine has and has left, so that what cannot fit is known before anything is allocated."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

LIMIT = Path("/sys/fs/cgroup/memory.max")      # of a container, where there is one
USED = Path("/sys/fs/cgroup/memory.stat")
SYSTEM, TAKEN = Path("/proc/meminfo"), Path("/proc/self/statm")


@cache
def installed() -> int:
    """Return the bytes of memory that this process may use at most; a very large number where nobody says."""
    most = 1 << 62
    with suppress(OSError, ValueError, AttributeError):
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):              # "max" where there is no limit
        most = min(most, int(LIMIT.read_text()))
    return most


def free() -> int:
    """Return the bytes of memory that are left to this process; all that is installed where nobody says."""
    left = installed()
    with suppress(OSError, ValueError, StopIteration):
        lines = SYSTEM.read_text().splitlines()
        left = min(left, int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024)
    with suppress(OSError, ValueError, KeyError):
        used = dict(line.split() for line in USED.read_text().splitlines())
        left = min(left, int(LIMIT.read_text()) - int(used["anon"]) - int(used["unevictable"]))
    with suppress(ImportError, OSError, ValueError):
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)      # `ulimit -v`, as batch systems set it
        if most != resource.RLIM_INFINITY:
            left = min(left, most - int(TAKEN.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE"))
    return max(0, left)
