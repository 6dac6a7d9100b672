"""``zoo convert``: a foreign checkpoint becomes a model of ours."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.output import Json, document
from zoo.cli.settings import pairs
from zoo.errors import ConfigError


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
    from zoo.conversion import printable
    from zoo.loading import save

    _check_free(out)
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
    with _whole(out) as draft:
        save(model, draft)
    if json:
        document({**facts, "directory": printable(str(out))})
        return
    networks, name = ", ".join(facts["networks"]), printable(file.name)
    typer.echo(
        f"{name} ({facts['source']['format']}): {facts['architecture']} at {facts['resolution']} pixels, "
        f"{facts['parameters'] / 1e6:.1f} M parameters in {networks}."
    )
    if "license" in facts:
        typer.echo(f"Licence of the weights: {facts['license']}.")
    typer.echo(f'Load it with zoo.load("dir:{printable(str(out))}").')


def _check_free(out: Path) -> None:
    """Raise ConfigError unless a folder can be made here, before the work begins."""
    with _named(out):
        taken = (out.exists() or out.is_symlink()) and (not out.is_dir() or any(out.iterdir()))
    if taken:
        raise ConfigError(f"{out} exists and is not empty: give a new folder.")
    above = next((place for place in (out, *out.absolute().parents) if os.path.lexists(place)), out)
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{out} cannot be written: {above} is no folder, or not yours to write in. Give another.")


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """Yield a folder beside `out`, or in it where it exists, whose files are in `out` once all are written.

    What is interrupted leaves no model behind, not even half of one.
    """
    with _named(out):
        fresh = not out.exists()
        above = out.parent if fresh else out
        above.mkdir(parents=True, exist_ok=True)
    draft = above / f".draft-{secrets.token_hex(6)}"      # named here: an interrupt can follow right after it is made
    try:
        with _named(out):
            draft.mkdir(mode=0o700)
            yield draft
            if fresh:
                draft.chmod(0o755)
                draft.rename(out)
            else:      # it may be a volume, which cannot be replaced; without config.json it is no model yet
                for file in sorted(draft.iterdir(), key=lambda file: file.name == "config.json"):
                    file.rename(out / file.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        raise ConfigError(f"{out} cannot be written ({cause}): give a folder on a disk with room.") from error
