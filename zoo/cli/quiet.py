"""What reaches standard error: our own words, a line at a time; no library's warnings, and one voice per run."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from zoo.launch import leave_word, rank

LIBRARIES_QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR", "HF_HUB_VERBOSITY": "error"}


def hush(debug: bool) -> None:
    """Silence libraries' warnings unless debugging, and all processes of a run but the first."""
    if rank() > 0:
        sys.stdout = open(os.devnull, "w")   # noqa: SIM115  (open for the life of the process)
    if debug:
        return
    for name, value in LIBRARIES_QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("default", module=r"zoo(\.|$)")
    warnings.showwarning = lambda message, *rest, **more: say(str(message))
    if not logging.getLogger().handlers:     # without any, Python prints libraries' warnings itself
        logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("zoo").handlers = [_Voice()]


def say(message: str) -> None:
    """Print one line on standard error, unless this is not the first process of a run."""
    if rank() == 0:
        print(f"zoo: {printable(message)}", file=sys.stderr, flush=True)


def complain(message: str, code: int) -> None:
    """Print the line that ends this process, or leave it to the process that launched this one."""
    if not leave_word(printable(message), code):
        print(f"zoo: {printable(message)}", file=sys.stderr, flush=True)


def printable(message: str) -> str:
    """Return a message as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in message).split())


class _Voice(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())
