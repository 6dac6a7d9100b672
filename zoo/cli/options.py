"""Options that `train` and `finetune` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from zoo.model import Model

Out = Annotated[Path, typer.Option(metavar="RUN", help="The run directory to make.")]
Kimg = Annotated[float, typer.Option(help="Length of the training, in thousand images shown.")]
Batch = Annotated[
    str | None,
    typer.Option(
        metavar="N|auto",
        help="Images a step, over all processes; the recipe's if left out. auto: the recipe's, split as memory allows.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in RUN, or begin where there is none.")
]
Every = Annotated[float, typer.Option(metavar="KIMG", help="Thousand images between two checkpoints.")]
Keep = Annotated[int, typer.Option(min=1, help="Checkpoints kept.")]
Track = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Show the log in a tracker too, such as tensorboard; may be repeated."),
]
Patience = Annotated[
    int, typer.Option(min=1, help="Steps in a row with values that are not finite before the training goes back.")
]
OnCollapse = Annotated[
    Literal["off", "warn", "stop", "rollback"],
    typer.Option(help="When the watchdog sees a collapse: say so, stop, or go back to before it. off: no watchdog."),
]
HoldOut = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=0, help="Images kept out of the training, which show whether the critic learns by heart."
    ),
]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Add = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME:OPTION=VALUE,...",
        help="Add a loss term or a method to the recipe, such as r1:gamma=1; zoo recipes lists them; may be repeated.",
    ),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="Settings and additions from a TOML file: [set] and [add.NAME]."),
]
Precision = Annotated[Literal["no", "bf16", "fp16"] | None, typer.Option(help="Autocast; no: float32 throughout.")]
Accumulate = Annotated[int, typer.Option(min=1, help="Micro-batches that a step is split into, to save memory.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Run the phases that allow it through torch.compile; first steps take longer.")
]
Workers = Annotated[int, typer.Option(min=0, help="Threads that decode images.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes on this machine: one a GPU, or several on a CPU.")]
Critic = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="projected, or projected:BACKBONE@PIXELS: judge images by the features of a pretrained timm network "
        "instead of with the architecture's own discriminator. PIXELS: at least four times the images' size.",
    ),
]


def with_critic(model: Model, kind: str | None) -> Model:
    """Return the model with the discriminator that ``--critic`` asks for.

    Raises:
        ConfigError: it asks for something else.
    """
    import re

    from zoo.backbones import LITE0
    from zoo.errors import ConfigError
    from zoo.projected import project

    if kind is None:
        return model
    found = re.fullmatch(r"projected(?::(?P<backbone>[^@:]+))?(?:@(?P<pixels>\d{1,4}))?", kind)
    if not found:
        raise ConfigError(f"--critic {kind}: write projected, projected@96 or projected:resnet18@96.")
    pixels = int(found["pixels"]) if found["pixels"] else None
    return project(model, found["backbone"] or LITE0, resolution=pixels)


def with_file(
    file: Path | None, settings: list[str] | None, add: list[str] | None
) -> tuple[list[str], list[str]]:
    """Return settings and additions of a recipe file, if one is given, and of the command line, which count first."""
    from zoo.additions.files import merged, read

    stored, additions = read(file) if file is not None else ([], [])
    return merged(stored, settings or [], "="), merged(additions, add or [], ":")


def batch_size(given: str | None) -> Any:
    """Return what ``--batch`` says: a number, "auto" or None.

    Raises:
        ConfigError: it says something else.
    """
    from zoo.errors import ConfigError

    if given is None or given == "auto":
        return given
    if not given.isascii() or not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"--batch {given}: give a number of images, at least 1, or auto.")
    return int(given)


def seed_everything(seed: int) -> None:
    """Seed torch's global generator, which new weights are drawn from: every process of a run draws the same."""
    import torch

    from zoo.noise import key

    torch.manual_seed(key("weights", seed))


def without_processes(arguments: list[str]) -> list[str]:
    """Return a command line without its ``--processes N``."""
    kept: list[str] = []
    skip = False
    for word in arguments:
        if not skip and word != "--processes" and not word.startswith("--processes="):
            kept.append(word)
        skip = word == "--processes"
    return kept
