"""``zoo explain``: what went wrong in a training, and what to try next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.output import Json, document, lines


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, in whatever state the training is.")],
    json: Json = False,
) -> None:
    """Say what went wrong in a training, since when, and what to try next, as exact options."""
    from zoo.explanation import explain as explained

    told = explained(run)
    if json:
        document(told.to_dict())
    else:
        lines(told)
