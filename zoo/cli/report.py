"""``zoo report``: one page that tells all about a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.target import DATA_HELP, Parent


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, in whatever state the training is.")],
    data: Annotated[str | None, typer.Argument(metavar="DATA", help=DATA_HELP, show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.html", help="The page to write; RUN/report.html if left out.", show_default=False),
    ] = None,
    features: Annotated[
        str, typer.Option(help="By which neighbours in DATA are found: inception, timm:NAME, pixels or a plugin's.")
    ] = "pixels",
    samples: Annotated[
        int, typer.Option(min=1, help="Samples that are shown, and looked through for those nearest to an image.")
    ] = 64,
    parent: Parent = None,
) -> None:
    """Write one HTML page about a training: findings, evaluation, curves, pictures and settings."""
    from zoo.cli.progress import Progress
    from zoo.reporting import report as written

    with Progress(f"report {run}") as progress:
        path = written(
            run, data, out=out, features=features, samples=samples, parent=parent, progress=progress.images
        )
    typer.echo(str(path))
