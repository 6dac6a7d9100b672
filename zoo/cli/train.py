"""``zoo train``: an architecture from random weights."""

from __future__ import annotations

from typing import Annotated

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
from zoo.cli.settings import Settings, pairs, split
from zoo.cli.target import Data


def train(
    context: typer.Context,
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="An architecture's name; zoo list shows them.")],
    data: Data,
    out: Out,
    kimg: Kimg,
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
) -> None:
    """Train an architecture on your images from random weights."""
    from zoo.registry import architecture, model_class

    settings, additions = with_file(recipe, settings, add)
    config, chosen = split(settings, model_class(architecture(arch), pairs(settings).get("variant")).Config)
    if processes > 1:
        from zoo.launch import launch

        raise typer.Exit(launch(without_processes(context.obj), processes))
    from zoo import training
    from zoo.cli.progress import Progress
    from zoo.loading import create

    seed_everything(seed)
    with Progress(f"train {arch}") as progress:
        run = training.train(
            with_critic(create(arch, **config), critic),
            data,
            kimg=kimg,
            batch=batch_size(batch),
            out=out,
            resume=resume,
            checkpoint_kimg=every,
            keep=keep, patience=patience, on_collapse=on_collapse, hold_out=hold_out, track=track or (),
            seed=seed,
            settings=chosen,
            add=additions,
            precision=precision,
            accumulate=accumulate, compile=compile, workers=workers, progress=progress,
        )  # fmt: skip
    typer.echo(f"{run.directory}/model holds the weights, {run.directory}/samples the grids.")
