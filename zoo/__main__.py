"""``python -m zoo`` is the command ``zoo``; each process of a launched run starts here."""

import os
import sys

from zoo.cli import main
from zoo.launch import tie, world

if __name__ == "__main__":
    tie()
    code = main()
    if code and world() > 1:
        # A process that fails beside others ends at once: threads of the broken group abort when they are torn down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
