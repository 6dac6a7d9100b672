"""``zoo demo``: the whole journey on what the wheel brings along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("zoo-demo"),
    kimg: Annotated[float, typer.Option(min=0.1, help="Length of each training, in thousand images.")] = 8.0,
    seed: Annotated[int, typer.Option(help="Of both trainings.")] = 0,
) -> None:
    """Load, sample, fine-tune, evaluate and publish (dry run) in a few minutes, without a network or a GPU."""
    from zoo.cli.progress import Progress
    from zoo.demo import TARGET
    from zoo.demo import demo as run_demo

    summary = run_demo(out, Progress, kimg=kimg, seed=seed, say=typer.echo)
    rows = summary.table()
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    typer.echo(f"\nAgainst the images of {TARGET}, on features {summary.features} (smaller KID is better):")
    for row in rows:
        typer.echo("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    run = summary.directory / "finetuned"
    typer.echo(
        f"\nSamples    {run / 'samples'} against {summary.directory / 'scratch' / 'samples'}\n"
        f"Curves     {run / 'curves.png'}\n"
        f"Card       {run / 'model' / 'README.md'}\n"
        f"Published  {summary.published} (dry run: nothing left this machine)\n"
        f'Load it    zoo.load("dir:{run / "model"}")'
    )
