"""SIGTERM, SIGHUP and Ctrl-C end a training after its step, with a checkpoint; a second Ctrl-C ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Self

HANGUP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()      # the terminal was closed; Windows has none
HEARD = (signal.SIGTERM, signal.SIGINT, *HANGUP)


class Stop:
    """Listens for signals while used as a context; `number` is the first one that came.

    What a parent had this process ignore, such as Ctrl-C in a shell's background, stays ignored. Outside the main
    thread nothing is heard, as Python allows it nowhere else.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in HEARD:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
        elif number == signal.SIGINT:
            # A checkpoint that is being written is not yet published, so nothing is harmed by leaving it.
            sys.stderr.write("zoo: stopped at once; the last checkpoint stands\n")
            sys.stderr.flush()
            os._exit(128 + signal.SIGINT)
