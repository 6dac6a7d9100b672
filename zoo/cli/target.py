"""What verbs take: a model by name, a run by its directory, images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.errors import ConfigError

if TYPE_CHECKING:
    from zoo.model import Model

Name = Annotated[str, typer.Argument(metavar="NAME", help="ARCH, ARCH.TAG, hub:OWNER/REPO[@REVISION] or dir:PATH.")]
NameOrRun = Annotated[str, typer.Argument(metavar="NAME|RUN", help="A model's name, or a run directory.")]
Parent = Annotated[
    str | None,
    typer.Option(
        "--parent",
        metavar="NAME",
        help="Of a delta, such as RUN/delta: the weights that it is added to, where these are not those it names.",
    ),
]
DATA_HELP = "Image folder (class subfolders are labels), zip of one, tar shards, hf:OWNER/DATASET, or emoji."
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]


def with_parent(name: str, parent: str | None, *, device: str | None = None) -> str | Model:
    """Return the name as it is, or the model where ``--parent`` says what its delta is added to.

    Raises:
        ConfigError: the name is that of a run, whose model is whole.
    """
    from zoo.loading import load

    if parent is None:
        return name
    if os.path.isfile(os.path.join(name, "run.json")):
        raise ConfigError(f"--parent {parent}: {name} holds a whole model; leave --parent out, or give {name}/delta.")
    folder = os.path.isfile(os.path.join(name, "config.json"))
    return load(f"dir:{name}" if folder else name, parent=parent, device=device)
