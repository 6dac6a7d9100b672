"""``zoo demo``: the whole journey on what the wheel brings along."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("zoo-demo"),
) -> None:
    """Load, sample, fine-tune, evaluate and publish (dry run) in a few minutes, without a network or a GPU."""
    from zoo.demo import demo as run

    run(out)
