"""``zoo evaluate``: how good a model is, measured against images, or the same once more from a receipt."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.durations import seconds
from zoo.cli.options import Processes, Seed, without_processes
from zoo.cli.output import Json, document, kept_for_document, lines
from zoo.cli.target import DATA_HELP, Parent, with_parent
from zoo.errors import ConfigError
from zoo.metrics.metric import GROUPS

if TYPE_CHECKING:
    from zoo.evaluation import Evaluation
    from zoo.learning_curve import LearningCurve
    from zoo.repetition import Repetition

NAME_HELP = "A model's name, a run directory, or data:FOLDER for images; may be left out with --repeat."
FROM_RECEIPT = ("metrics", "samples", "features", "seed", "psi", "batch", "reference", "force", "errors", "budget",
                "fast", "resolution", "checkpoints")  # fmt: skip
NOT_OF_CHECKPOINTS = ("budget", "fast", "resolution", "parent")
A_MINUTE = 60.0
DIFFERS = 1      # exit code of a repetition that gives other values


Metrics = Annotated[str, typer.Option(help="Names with commas between them.")]
Samples = Annotated[int, typer.Option(min=1, help="Images to generate.")]
Features = Annotated[
    str | None,
    typer.Option(help="Extractor: inception, timm:NAME, clip:NAME, pixels, or a plugin's; quick ones if --fast."),
]
Psi = Annotated[float, typer.Option(help="Truncation of the samples; 1 is none.")]
AtOnce = Annotated[int, typer.Option("--batch", min=1, help="Images whose features are computed at once.")]
Reference = Annotated[int | None, typer.Option(min=1, help="Real images to compare with; all if left out.")]
Force = Annotated[bool, typer.Option("--force", help="Compute even from too few images to be trusted.")]
Errors = Annotated[
    int, typer.Option(metavar="GROUPS", help="Groups left out in turn to tell standard errors; 0: none are told.")
]
Budget = Annotated[
    str | None, typer.Option(metavar="TIME", help="Take as many images as fit in 60s, 5m or 1h, and say how sure.")
]
Fast = Annotated[bool, typer.Option("--fast", help="--budget 60s, and features that are on this machine and quick.")]
Resolution = Annotated[
    int | None, typer.Option(min=4, help="Pixels that images given as data:FOLDER are read at; theirs if left out.")
]
Checkpoints = Annotated[
    bool, typer.Option("--checkpoints", help="Measure all checkpoints that RUN has kept: values over kimg.")
]
Repeat = Annotated[
    Path | None,
    typer.Option(metavar="RECEIPT", help="Do again what an evaluation.json says, and tell whether it comes out."),
]


def evaluate(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME|RUN", help=NAME_HELP, show_default=False)] = None,
    data: Annotated[str | None, typer.Argument(metavar="DATA", help=DATA_HELP, show_default=False)] = None,
    metrics: Metrics = "fid,kid,precision_recall",
    samples: Samples = 50_000,
    features: Features = None,
    seed: Seed = 0,
    psi: Psi = 1.0,
    batch: AtOnce = 64,
    reference: Reference = None,
    force: Force = False,
    errors: Errors = GROUPS,
    budget: Budget = None,
    fast: Fast = False,
    resolution: Resolution = None,
    checkpoints: Checkpoints = False,
    processes: Processes = 1,
    repeat: Repeat = None,
    parent: Parent = None,
    json: Json = False,
) -> None:
    """Measure a model against images: FID, KID, precision and recall, ..."""
    if processes > 1:
        from zoo.launch import launch

        raise typer.Exit(launch(without_processes(context.obj), processes))
    if repeat is not None:
        _repeat(context, repeat, name, data, parent, json)
        return
    if name is None or data is None:
        missing = "NAME|RUN" if name is None else "DATA"
        raise ConfigError(f"Missing argument '{missing}': only --repeat does without. See zoo evaluate --help.")
    from zoo.evaluation import evaluate as measure
    from zoo.learning_curve import learning_curve
    from zoo.measuring import Settings, listed
    from zoo.metrics.names import offline_features
    from zoo.subjects import fastest_device

    how: dict[str, Any] = {
        "metrics": listed(metrics), "samples": samples, "seed": seed, "psi": psi, "batch": batch,
        "features": (offline_features() if fast else Settings.features) if features is None else features,
        "reference": reference, "force": force, "errors": errors,
    }  # fmt: skip
    if checkpoints:
        _refuse(context, NOT_OF_CHECKPOINTS, "is not for --checkpoints, which all are measured alike: leave it out.")
        _measure(context, name, json, lambda told: learning_curve(name, data, Settings(**how), **told))
        return
    how |= {"budget": seconds(budget) if budget is not None else A_MINUTE if fast else None, "resolution": resolution}
    _measure(context, name, json, lambda told: measure(
        with_parent(name, parent, device=fastest_device()), data, **how, **told
    ))  # fmt: skip


def _measure(
    context: typer.Context, name: str, json: bool, measure: Callable[[dict[str, Any]], Evaluation | LearningCurve]
) -> None:
    """Measure, given the rest of the arguments, and say what came out."""
    from zoo.cli.progress import Progress
    from zoo.launch import rank, world

    with kept_for_document(json), Progress(f"evaluate {name}") as progress:
        found = measure({
            "shared": world() > 1,
            "command": shlex.join(["zoo", *context.obj]),
            "progress": progress.images if rank() == 0 else None,
        })  # fmt: skip
    if rank() == 0:
        _say(found, json)


def _say(found: Evaluation | LearningCurve | Repetition, json: bool) -> None:
    if json:
        document(found.to_dict())
    else:
        lines(found)


def _refuse(context: typer.Context, options: Sequence[str], why: str) -> None:
    """Raise ConfigError where any of these options was given."""
    for option in options:
        source = context.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{option} {why}")


def _repeat(
    context: typer.Context, receipt: Path, name: str | None, data: str | None, parent: str | None, json: bool
) -> None:
    from zoo.cli.progress import Progress
    from zoo.launch import rank, world
    from zoo.repetition import repeat
    from zoo.subjects import fastest_device

    _refuse(context, FROM_RECEIPT, "is what the receipt says: leave it out beside --repeat, or --repeat itself.")
    if parent is not None and name is None:
        raise ConfigError(f"--parent {parent} needs the NAME of the delta beside --repeat.")
    with kept_for_document(json), Progress(f"repeat {receipt}") as progress:
        told = progress.images if rank() == 0 else None
        model = None if name is None else with_parent(name, parent, device=fastest_device())
        found = repeat(receipt, model, data, shared=world() > 1, progress=told)
    if rank() == 0:
        _say(found, json)
    if not found.agrees:
        raise typer.Exit(DIFFERS)
