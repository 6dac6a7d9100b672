"""``zoo doctor``: the state of the installation, or of a set of images before it is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from zoo.cli.output import Json, document, kept_for_document, lines
from zoo.errors import ConfigError

Data = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATA]",
        help="Image folder, zip of one, tar shards, hf:OWNER/DATASET, or emoji; left out: the installation.",
    ),
]
Against = Annotated[
    str | None, typer.Option(metavar="OTHER", help="Another set, such as a test set: images in both are found.")
]
Arch = Annotated[str, typer.Option(metavar="NAME", help="ARCH or ARCH.TAG that the suggestions are for.")]
Sheet = Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw a contact sheet into this file.")]
Resolution = Annotated[int | None, typer.Option(help="What you mean to train at; the suggested one if left out.")]
Workers = Annotated[int, typer.Option(min=1, help="Threads that decode images.")]
Seed = Annotated[int, typer.Option(help="Of the sheet's choice of images.")]


def doctor(
    data: Data = None,
    against: Against = None,
    arch: Arch = "stylegan",
    resolution: Resolution = None,
    sheet: Sheet = None,
    workers: Workers = 2,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Say what would spoil a training on your images, and how to train on them. Exit code 1: there are problems."""
    if data is None:
        if against is not None or sheet is not None or resolution is not None:
            raise ConfigError("zoo doctor without DATA looks at the installation: give DATA before the other options.")
        from zoo.doctor.installation import examine

        _told(examine(), json)
        return
    from zoo.cli.progress import Progress
    from zoo.doctor import diagnose

    with kept_for_document(json), Progress("doctor") as progress:
        found = diagnose(
            data,
            against=against,
            arch=arch,
            resolution=resolution,
            workers=workers,
            sheet=sheet,
            seed=seed,
            progress=progress.images,
        )
    _told(found, json)


def _told(found: Any, json: bool) -> None:
    if json:
        document(found.to_dict())
    else:
        lines(found)
    if found.problems:
        raise typer.Exit(1)
