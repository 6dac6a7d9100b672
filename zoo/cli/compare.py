"""``zoo compare``: two evaluations side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.output import Json, document, lines


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="An evaluation.json, or a run directory that holds one.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    json: Json = False,
) -> None:
    """Show the values of two evaluations side by side; refuse those that are not of one measure."""
    from zoo.comparison import compare as compared

    found = compared(a, b)
    if json:
        document(found.to_dict())
    else:
        lines(found)
