"""``zoo evaluate``: how good a model is, measured against images."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo.cli.output import Json, document, kept_for_document
from zoo.cli.target import Data, NameOrRun, Parent, with_parent


def evaluate(
    name: NameOrRun,
    data: Data,
    metrics: Annotated[str, typer.Option(help="Names with commas between them.")] = "fid,kid,precision_recall",
    samples: Annotated[int, typer.Option(min=1, help="Images to generate.")] = 50_000,
    features: Annotated[str, typer.Option(help="Extractor: inception, timm:NAME, pixels or a plugin's.")] = "inception",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    psi: Annotated[float, typer.Option(help="Truncation of the samples; 1 is none.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Images whose features are computed at once.")] = 64,
    reference: Annotated[int | None, typer.Option(min=1, help="Real images to compare with; all if left out.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Compute even from too few images to be trusted.")] = False,
    parent: Parent = None,
    json: Json = False,
) -> None:
    """Measure a model against images: FID, KID, precision and recall, ..."""
    import torch

    from zoo.cli.progress import Progress
    from zoo.evaluation import evaluate as measure

    with kept_for_document(json), Progress(f"evaluate {name}") as progress:
        found = measure(
            with_parent(name, parent, device="cuda" if torch.cuda.is_available() else "cpu"),
            data,
            metrics=metrics.split(","),
            samples=samples,
            features=features,
            seed=seed,
            psi=psi,
            batch=batch,
            reference=reference,
            force=force,
            progress=progress.images,
        )
    if json:
        document(found.to_dict())
    else:
        typer.echo(str(found))
