"""``zoo convert``: a foreign checkpoint becomes a model of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.output import Json, document
from zoo.cli.settings import pairs


def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The checkpoint, or the folder of its files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Folder for config.json and model.safetensors.")],
    format: Annotated[str, typer.Option(help="What it was made by; auto: recognised by its content.")] = "auto",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting that the file cannot say; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Read a foreign checkpoint, without running any of it, and save it as a model of ours."""
    from zoo.conversion import convert as read
    from zoo.errors import ConfigError
    from zoo.loading import save

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not empty: give a new folder.")
    chosen = pairs(settings)
    if taken := {"path", "format"} & set(chosen):
        raise ConfigError(f"--set {taken.pop()}: no setting of a model; see zoo convert --help.")
    model = read(file, format=format, **chosen)
    facts = {
        "architecture": model.architecture,
        "networks": [*model.networks(), *(f"averages.{name}" for name in model.averages)],
        "absent": list(model.absent),
        "resolution": model.config.resolution,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **model.origin,
    }
    save(model, out)
    if json:
        document({**facts, "directory": str(out)})
        return
    networks = ", ".join(facts["networks"])
    typer.echo(
        f"{file.name} ({facts['source']['format']}): {facts['architecture']} at {facts['resolution']} pixels, "
        f"{facts['parameters'] / 1e6:.1f} M parameters in {networks}."
    )
    if "license" in facts:
        typer.echo(f"Licence of the weights: {facts['license']}.")
    typer.echo(f'Load it with zoo.load("dir:{out}").')
