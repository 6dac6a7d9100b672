"""``zoo sample``: a grid of images."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.target import Name, Parent


def sample(
    name: Name,
    out: Annotated[Path, typer.Option(help="The picture to write.")],
    n: Annotated[int, typer.Option("-n", min=1, max=100_000, help="How many images.")] = 16,
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    psi: Annotated[float, typer.Option(help="Truncation: 1 is none; smaller trades variety for typical images.")] = 1.0,
    labels: Annotated[str | None, typer.Option(help="Class indices such as 0,3,7, taken in turn.")] = None,
    parent: Parent = None,
) -> None:
    """Write a grid of images that a model makes."""
    from zoo.errors import WeightsError
    from zoo.images import check_place, save_grid
    from zoo.loading import load

    check_place(out)
    chosen = None if labels is None else list(islice(cycle(_indices(labels)), n))
    images = load(name, parent=parent).sample(n, seed=seed, psi=psi, labels=chosen)
    if not bool(images.isfinite().all()):
        raise WeightsError(f"{name} makes NaN or infinity: its training diverged, so take earlier weights.")
    typer.echo(save_grid(images, out))


def _indices(text: str) -> list[int]:
    from zoo.errors import ConfigError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--labels {text}: give class indices with commas between them, such as 0,3,7.") from error
