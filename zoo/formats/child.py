"""The process that reads a stranger's file: standard input is the file, standard output what is handed over.

It is given no path. Before it looks at the first byte it limits itself: memory, time, the size of what it writes, and
the number of open files to none, so that it can open nothing more, neither a file nor a connection. A refusal is one
line on standard error and exit code 3.
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import sys

from zoo.errors import WeightsError
from zoo.formats.handover import LONGEST_HEADER, most_bytes, write
from zoo.formats.parsing import parse

REFUSED, FULL = 3, 4           # exit codes; a full disk has no room for a cause
MEMORY = 1 << 30               # bytes for the interpreter and what a pickle unfolds to
SECONDS = 20                   # of processor time, and one for every 20 MB


def confine(size: int) -> None:
    """Limit what this process can do to what reading a file of `size` bytes takes."""
    try:
        import resource
    except ImportError:                # not on Windows
        return
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY + 2 * size),
        (resource.RLIMIT_CPU, SECONDS + size // 20_000_000),
        (resource.RLIMIT_FSIZE, most_bytes(size) + LONGEST_HEADER),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        _, most = resource.getrlimit(limit)
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError):
            if sys.platform == "linux":        # macOS has no limit on memory
                raise


def main() -> None:
    """Read standard input, write standard output, and end the process."""
    size = os.fstat(0).st_size
    gc.disable()                       # what is made here is kept until the end
    try:
        with open(1, "wb", closefd=False) as out:
            data = memoryview(mmap.mmap(0, size, access=mmap.ACCESS_READ) if size else b"")
            confine(size)
            write(parse(data), size, out)
    except WeightsError as error:
        refuse(str(error))
    except MemoryError:
        refuse("it takes more memory than a file of its size may: it is damaged or altered.")
    except RecursionError:
        refuse("it is nested too deeply.")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            os._exit(FULL)
        refuse(f"it cannot be read ({error}).")
    except Exception as error:         # a mistake of ours, but the user's file is what it is
        refuse(f"it cannot be read ({type(error).__name__}: {error}).")
    os._exit(0)                        # the mapping is still in use: no tidying up


def refuse(cause: str) -> None:
    """Say why the file is not read, and end."""
    os.write(2, cause.encode("utf-8", "replace"))
    os._exit(REFUSED)


if __name__ == "__main__":
    main()
