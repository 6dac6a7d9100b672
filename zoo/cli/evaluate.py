"""``zoo evaluate``: how good a model is, measured against images, or the same once more from a receipt."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.output import Json, document, kept_for_document, lines
from zoo.cli.target import DATA_HELP, Parent, with_parent
from zoo.errors import ConfigError

NAME_HELP = "A model's name, or a run directory; may be left out with --repeat."
FROM_RECEIPT = ("metrics", "samples", "features", "seed", "psi", "batch", "reference", "force")
DIFFERS = 1      # exit code of a repetition that gives other values


def evaluate(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME|RUN", help=NAME_HELP, show_default=False)] = None,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help=DATA_HELP, show_default=False)] = None,
    metrics: Annotated[str, typer.Option(help="Names with commas between them.")] = "fid,kid,precision_recall",
    samples: Annotated[int, typer.Option(min=1, help="Images to generate.")] = 50_000,
    features: Annotated[str, typer.Option(help="Extractor: inception, timm:NAME, pixels or a plugin's.")] = "inception",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    psi: Annotated[float, typer.Option(help="Truncation of the samples; 1 is none.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Images whose features are computed at once.")] = 64,
    reference: Annotated[int | None, typer.Option(min=1, help="Real images to compare with; all if left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Compute even from too few images to be trusted.")] = False,
    repeat: Annotated[
        Path | None,
        typer.Option(metavar="RECEIPT", help="Do again what an evaluation.json says, and tell whether it comes out."),
    ] = None,
    parent: Parent = None,
    json: Json = False,
) -> None:
    """Measure a model against images: FID, KID, precision and recall, ..."""
    if repeat is not None:
        _repeat(context, repeat, name, data, parent, json)
        return
    if name is None or data is None:
        missing = "NAME|RUN" if name is None else "DATA"
        raise ConfigError(f"Missing argument '{missing}': only --repeat does without. See zoo evaluate --help.")
    from zoo.cli.progress import Progress
    from zoo.evaluation import evaluate as measure
    from zoo.evaluation import fastest_device

    with kept_for_document(json), Progress(f"evaluate {name}") as progress:
        found = measure(
            with_parent(name, parent, device=fastest_device()),
            data,
            metrics=metrics.split(","),
            samples=samples,
            features=features,
            seed=seed,
            psi=psi,
            batch=batch,
            reference=reference,
            force=force,
            command=shlex.join(["zoo", *context.obj]),
            progress=progress.images,
        )
    if json:
        document(found.to_dict())
    else:
        typer.echo(str(found))


def _repeat(
    context: typer.Context, receipt: Path, name: str | None, data: str | None, parent: str | None, json: bool
) -> None:
    from zoo.cli.progress import Progress
    from zoo.evaluation import fastest_device, repeat

    for option in FROM_RECEIPT:
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{option} is what the receipt says: leave it out beside --repeat, or --repeat itself.")
    if parent is not None and name is None:
        raise ConfigError(f"--parent {parent} needs the NAME of the delta beside --repeat.")
    with kept_for_document(json), Progress(f"repeat {receipt}") as progress:
        model = None if name is None else with_parent(name, parent, device=fastest_device())
        found = repeat(receipt, model, data, progress=progress.images)
    if json:
        document(found.to_dict())
    else:
        lines(found)
    if not found.agrees:
        raise typer.Exit(DIFFERS)
