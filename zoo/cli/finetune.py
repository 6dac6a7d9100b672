"""``zoo finetune``: a pretrained model on your images."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zoo.cli.options import (
    Accumulate,
    Add,
    Batch,
    Compile,
    Critic,
    Every,
    HoldOut,
    Keep,
    Kimg,
    OnCollapse,
    Out,
    Patience,
    Precision,
    Processes,
    RecipeFile,
    Resume,
    Seed,
    Track,
    Workers,
    batch_size,
    seed_everything,
    with_critic,
    with_file,
    without_processes,
)
from zoo.cli.settings import Settings, split
from zoo.cli.target import Data, Name, Parent


def finetune(
    context: typer.Context,
    name: Name,
    data: Data,
    out: Out,
    kimg: Kimg,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME[:OPTION=VALUE,...]",
            help="Transfer method, such as freeze_d or l2_sp:weight=0.1; auto goes by the images and the weights.",
        ),
    ] = "auto",
    batch: Batch = None,
    resume: Resume = False,
    every: Every = 50.0,
    keep: Keep = 2,
    patience: Patience = 5,
    on_collapse: OnCollapse = "warn",
    hold_out: HoldOut = None,
    track: Track = None,
    critic: Critic = None,
    settings: Settings = None,
    add: Add = None,
    recipe: RecipeFile = None,
    seed: Seed = 0,
    precision: Precision = None,
    accumulate: Accumulate = 1,
    compile: Compile = False,
    workers: Workers = 0,
    processes: Processes = 1,
    parent: Parent = None,
) -> None:
    """Fine-tune a pretrained model on your images."""
    if processes > 1:
        from zoo.launch import launch

        raise typer.Exit(launch(without_processes(context.obj), processes))
    from zoo import training
    from zoo.cli.progress import Progress

    seed_everything(seed)
    settings, additions = with_file(recipe, settings, add)
    begun, chosen = _begun(name, parent, settings, critic)
    with Progress(f"finetune {name}") as progress:
        run = training.finetune(
            begun,
            data,
            kimg=kimg,
            method=method,
            batch=batch_size(batch),
            out=out, resume=resume,
            checkpoint_kimg=every,
            keep=keep, patience=patience, on_collapse=on_collapse, hold_out=hold_out, track=track or (),
            seed=seed,
            settings=chosen,
            add=additions,
            precision=precision,
            accumulate=accumulate, compile=compile, workers=workers, progress=progress,
        )  # fmt: skip
    typer.echo(f"{run.directory}/model holds the weights, {run.directory}/samples the grids.")


def _begun(
    name: str, parent: str | None, settings: list[str] | None, critic: str | None
) -> tuple[Any, dict[str, Any]]:
    # A changed configuration, such as another resolution, needs the weights fitted to it; a model that is left as it is
    # stays a name, which may be fitted to the classes of the data.
    from zoo.loading import load

    if not settings and critic is None and parent is None:
        return name, {}
    model = load(name, parent=parent)
    config, recipe = split(settings, type(model).Config)
    if not config and critic is None and parent is None:
        return name, recipe
    return with_critic(load(name, adapt=True, parent=parent, **config) if config else model, critic), recipe
