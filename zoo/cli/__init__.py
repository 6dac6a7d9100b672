"""The command ``zoo``: every way it can end is decided here.

A user's mistake is one line on standard error and exit code 2, a failure of the work one line and 1, Ctrl-C 130, and
SIGTERM during a training 143.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from zoo.errors import Collapsed, Diverged, Interrupted, Lost, ZooError

MISTAKE, FAILURE, INTERRUPTED, BROKEN_PIPE = 2, 1, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (`sys.argv` unless given) and return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    words = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in words               # wherever it stands: nobody wants to retype a long command for it
    arguments = [word for word in words if word != "--debug"] + given[len(words) :]
    from zoo.cli.quiet import hush

    hush(debug)
    try:
        code = _run(arguments or ["--help"], given)
        sys.stdout.flush()
        return code
    except BaseException as error:
        if debug and not isinstance(error, SystemExit):
            import traceback

            traceback.print_exc()
        return _ended(error)
    finally:
        if argv is None:      # the process ends now, and all is said: Ctrl-C shall end it at once, without a traceback
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _run(arguments: list[str], given: list[str]) -> int:
    import typer

    from zoo.cli.app import app

    try:
        command = typer.main.get_command(app)
        with command.make_context("zoo", list(arguments), obj=given) as context:
            command.invoke(context)
    except typer.Exit as done:
        return int(done.exit_code)
    except Exception as error:
        if not isinstance(error, typer.BadParameter.__mro__[2]):    # ClickException: click's, or of the copy in typer
            raise
        place: Any = getattr(error, "ctx", None)
        message: str = error.format_message()    # type: ignore[attr-defined]
        raise ZooError(f"{message.rstrip('.')}. See {place.command_path if place else 'zoo'} --help.") from error
    return 0


def _ended(error: BaseException) -> int:
    from zoo.cli.quiet import complain
    from zoo.discovery import one_line

    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            complain(error.code, FAILURE)
        return error.code if isinstance(error.code, int) else FAILURE if error.code else 0
    if isinstance(error, KeyboardInterrupt):
        complain("interrupted", INTERRUPTED)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):   # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, Interrupted):
        complain(str(error), error.code)
        return error.code
    if isinstance(error, ZooError):
        code = FAILURE if isinstance(error, Collapsed | Diverged | Lost) else MISTAKE
        complain(str(error), code)
        return code
    complain(f"failed: {one_line(error)} (--debug shows where)", FAILURE)
    return FAILURE
