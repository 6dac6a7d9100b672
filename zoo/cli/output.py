"""What verbs print on standard output: one JSON document, or columns for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]


def document(value: object) -> None:
    """Print a value as one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def columns(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> None:
    """Print rows, under a header if there is one, each column as wide as its widest cell; nothing is cut off."""
    cells = [[str(cell) for cell in row] for row in (header, *rows) if row]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def lines(value: object) -> None:
    """Print a text of several lines, which may quote a stranger's: without control characters, its spaces kept."""
    for line in str(value).split("\n"):
        print("".join(c if c.isprintable() else " " for c in line))


@contextmanager
def kept_for_document(wanted: bool) -> Iterator[Any]:
    """Send everything that is printed inside to standard error when standard output is for one JSON document."""
    with redirect_stdout(sys.stderr if wanted else sys.stdout):
        yield
