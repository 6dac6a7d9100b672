"""``zoo show``: pictures by which people judge a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from zoo.cli.target import DATA_HELP, NameOrRun, Parent, with_parent
from zoo.errors import ConfigError, UnknownName, suggest

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.model import Model
    from zoo.pictures.samples import Progress
    from zoo.subjects import Subject

FEATURES = "pixels"      # need no weights
FRAMES, FPS = 60, 15     # of an animation: four seconds


@dataclass(frozen=True)
class Asked:
    """What a picture is to show, and where it goes."""

    subject: Subject
    data: str | None
    out: Path
    given: dict[str, Any]      # the seed and options that were given, as the functions call them
    progress: Progress

    @property
    def model(self) -> Model:
        if self.subject.model is None:
            raise ConfigError("Images were given, but a model makes these pictures: give its name or a run.")
        return self.subject.model

    @property
    def images(self) -> ImageSet:
        assert self.data is not None      # of kinds that need it
        return self.subject.real(self.data)


def _grid(asked: Asked) -> Path:
    from zoo.images import save
    from zoo.pictures import sample_grid

    return save(sample_grid(asked.model, **asked.given), asked.out)


def _truncation(asked: Asked) -> Path:
    from zoo.images import save
    from zoo.pictures import truncation_sweep

    return save(truncation_sweep(asked.model, **asked.given, progress=asked.progress), asked.out)


def _interpolation(asked: Asked) -> Path:
    from zoo.images import save
    from zoo.pictures import interpolation_strip

    return save(interpolation_strip(asked.model, **asked.given, progress=asked.progress), asked.out)


def _classes(asked: Asked) -> Path:
    from zoo.data import open_source
    from zoo.images import save
    from zoo.pictures import class_grid

    names = None if asked.data is None else open_source(asked.data).classes
    return save(class_grid(asked.model, **asked.given, names=names, progress=asked.progress), asked.out)


def _neighbours(asked: Asked) -> Path:
    from zoo.images import save
    from zoo.metrics.names import extractor
    from zoo.pictures import neighbour_sheet

    given = dict(asked.given)
    features = extractor(given.pop("features", FEATURES), asked.model.device)
    return save(neighbour_sheet(asked.model, asked.images, features, **given, progress=asked.progress), asked.out)


def _real_and_fake(asked: Asked) -> Path:
    from zoo.images import save
    from zoo.pictures import real_and_fake

    return save(real_and_fake(asked.model, asked.images, **asked.given, progress=asked.progress), asked.out)


def _moving(asked: Asked) -> Path:
    from zoo.pictures import interpolation, save_animation

    given = {"steps": FRAMES, **asked.given}
    fps = given.pop("fps", FPS)
    images = interpolation(asked.model, **given, loop=True, progress=asked.progress)
    return save_animation(images.transpose(0, 1), asked.out, fps=fps)


@dataclass(frozen=True)
class Kind:
    """A kind of picture."""

    write: Callable[[Asked], Path]
    takes: tuple[str, ...]                                  # options besides the seed
    data: Literal["needed", "possible", "none"] = "none"


KINDS = {
    "grid": Kind(_grid, ("n", "psi")),
    "truncation": Kind(_truncation, ("n",)),
    "interpolation": Kind(_interpolation, ("n", "psi", "steps")),
    "classes": Kind(_classes, ("n", "psi"), "possible"),
    "neighbours": Kind(_neighbours, ("n", "psi", "features", "samples"), "needed"),
    "real-and-fake": Kind(_real_and_fake, ("n", "psi"), "needed"),
}
MOVING = {"interpolation": Kind(_moving, ("n", "psi", "steps", "fps"))}      # where FILE can move


def show(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"{', '.join(KINDS)}.")],
    name: NameOrRun,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The picture to write; .gif, .webp or .mp4 of an interpolation moves.")
    ],
    data: Annotated[str | None, typer.Argument(metavar="DATA", help=DATA_HELP, show_default=False)] = None,
    n: Annotated[int | None, typer.Option("-n", help="Images in a row, or rows of what is compared.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same picture.")] = 0,
    psi: Annotated[float | None, typer.Option(help="Truncation; 1, which is none, if left out.")] = None,
    steps: Annotated[
        int | None, typer.Option(help=f"Images of an interpolation: 8, of one that moves {FRAMES}, if left out.")
    ] = None,
    fps: Annotated[int | None, typer.Option(help=f"Images a second; {FPS} if left out.")] = None,
    features: Annotated[
        str | None,
        typer.Option(help=f"By which neighbours are found: inception, timm:NAME, {FEATURES} or a plugin's."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Samples of which those nearest to an image are shown; -n if left out.")
    ] = None,
    parent: Parent = None,
) -> None:
    """Draw what a model makes, so that people can judge it by eye."""
    options = {"n": n, "psi": psi, "steps": steps, "fps": fps, "features": features, "samples": samples}
    given = {option: value for option, value in options.items() if value is not None}
    chosen = _checked(kind, out, data, given)
    from zoo.cli.progress import Progress
    from zoo.subjects import fastest_device, opened

    with Progress(f"show {kind}") as progress:
        subject = opened(with_parent(name, parent, device=fastest_device()))
        path = chosen.write(Asked(subject, data, out, {"seed": seed, **given}, progress.images))
    typer.echo(str(path))


def _checked(kind: str, out: Path, data: str | None, given: dict[str, Any]) -> Kind:
    """Return the kind of picture, once it is known that it can be drawn from what was given."""
    from zoo.images import check_place
    from zoo.pictures.animation import animated, check_animation

    if kind not in KINDS:
        near, all_of = suggest(kind, list(KINDS)), ", ".join(KINDS)
        raise UnknownName(f"No kind of picture is named {kind!r}.{near} Possible: {all_of}.")
    moving = kind in MOVING and animated(out)
    chosen = MOVING[kind] if moving else KINDS[kind]
    for option in given:
        if option not in chosen.takes:
            written = [f"-{each}" if len(each) == 1 else f"--{each}" for each in (option, *chosen.takes, "seed")]
            what = f"zoo show {kind} --out {out.name}"
            raise ConfigError(f"{written[0]} says nothing to {what}: leave it out. Options: {', '.join(written[1:])}.")
    if chosen.data == "needed" and data is None:
        raise ConfigError(f"Missing argument 'DATA': zoo show {kind} compares with images. See zoo show --help.")
    if chosen.data == "none" and data is not None:
        raise ConfigError(f"zoo show {kind} shows the model alone: leave {data} out.")
    if moving:
        check_animation(out, fps=given.get("fps", FPS))
    else:
        check_place(out)
    return chosen
