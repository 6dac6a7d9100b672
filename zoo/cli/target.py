"""What verbs take: a model by name, a run by its directory, images."""

from __future__ import annotations

from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="NAME", help="ARCH, ARCH.TAG, hub:OWNER/REPO[@REVISION] or dir:PATH.")]
NameOrRun = Annotated[str, typer.Argument(metavar="NAME|RUN", help="A model's name, or a run directory.")]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Image folder (class subfolders are labels), zip of one, tar shards, hf:OWNER/DATASET, or emoji.",
    ),
]
