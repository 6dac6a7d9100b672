"""One page that tells a person all about a training: a single HTML file, to be read offline, kept and sent on."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError, RunError, ZooError
from zoo.explanation import explain
from zoo.learning_curve import known
from zoo.reporting.chart import drawn
from zoo.reporting.curves import panels
from zoo.reporting.embedding import grids
from zoo.reporting.evaluations import evaluated_panels
from zoo.reporting.facts import looked, overview, settings_tables, short, summary
from zoo.reporting.page import rendered
from zoo.reporting.repeating import command
from zoo.reporting.values import evaluated
from zoo.training.run import Run
from zoo.versions import versions

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.model import Model
    from zoo.pictures.samples import Progress
    from zoo.reporting.showing import Shown

__all__ = ["report"]
FILE = "report.html"      # its name in a run directory
MOST = 400                # samples of one picture: more are too small to be seen


def report(
    run: str | Path | Run,
    data: str | Path | ImageSet | None = None,
    *,
    out: str | Path | None = None,
    features: str = "pixels",
    samples: int = 64,
    parent: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a page about a run, in whatever state the training is, and return its path.

    The page needs no other file and no network. What is missing or damaged in a run is said in its place.

    Args:
        run: a run or its directory.
        data: images to show beside samples, as for `zoo.train`; None: nothing that needs any.
        out: the file to write, which ends with .html; None: RUN/report.html.
        features: by which the nearest neighbours of samples among the images are found; as of `zoo.evaluate`.
        samples: how many are shown, and looked through for those that are nearest to an image.
        parent: name of the weights that RUN/delta is added to, of a run without RUN/model.
        progress: called with (which images, how many are done, how many there are) while pictures are drawn.

    Raises:
        RunError: the directory holds no run, or the page cannot be written.
        ConfigError, DataError, UnknownName, EvaluationError: an argument is not possible.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    if not isinstance(samples, int) or not 1 <= samples <= MOST:
        raise ConfigError(f"samples={str(samples)[:60]}: give an integer from 1 to {MOST}.")
    place = _place(opened.directory / FILE if out is None else out)
    told = _told(opened)      # first: a run that cannot be read is not drawn
    state, figures = _figures(opened, data, features, samples, parent, progress)
    return _written(rendered(**told, state=state, figures=figures), place)


def _told(run: Run) -> dict[str, Any]:
    """Return all that the page tells but what the networks make."""
    settings, lines, told = run.settings, run.log, explain(run)
    shown, left_out = panels(lines)
    pictures, lost = grids(run.directory / "samples")
    return {
        "title": short(run.directory.resolve().name or run.directory),
        "summary": summary(settings, told, lines),
        "facts": overview(settings, told, lines, run.directory / "log.jsonl"),
        "told": told,
        "looked": looked(lines),
        "evaluation": evaluated(run),
        "evaluations": [drawn(panel, told.found, told.kimg) for panel in evaluated_panels(known(run))],
        "charts": [drawn(panel, told.found, told.kimg) for panel in shown],
        "left_out": left_out,
        "grids": pictures,
        "lost": lost,
        "settings": settings_tables(settings),
        "command": command(settings, run.directory),
        "version": versions()["zoo"],
    }


def _figures(
    run: Run,
    data: str | Path | ImageSet | None,
    features: str,
    samples: int,
    parent: str | None,
    progress: Progress | None,
) -> tuple[str, list[Shown]]:
    """Return which state of the networks is shown, or why none is, and the pictures."""
    from zoo.data import open_images
    from zoo.metrics.names import extractor
    from zoo.reporting import showing

    try:
        model, state = _networks(run, parent)
    except ZooError as error:
        if parent is not None:      # whoever names one is told that it does not fit
            raise
        return str(error), []
    config = model.config
    images = None if data is None else open_images(data, resolution=config.resolution, channels=config.channels)
    seen = None if data is None else extractor(features, model.device)
    figures = list(showing.alone(model, run.settings, samples, progress))
    if images is not None and seen is not None:
        figures += showing.beside(model, images, seen, run.settings, samples, progress)
    return f"Drawn from {state}.", figures


def _networks(run: Run, parent: str | None) -> tuple[Model, str]:
    from zoo.reporting.trained import networks
    from zoo.subjects import fastest_device

    model, state = networks(run, parent)
    return model.to(fastest_device()), state


def _place(out: str | Path) -> Path:
    """Return where the page goes, once it is known that it can be written there.

    Raises:
        ConfigError: the name does not end with .html, or is that of a folder.
        RunError: nothing can be written there.
    """
    path = Path(out)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{str(out)!r} names no page: end it with .html.")
    try:
        if path.is_dir():
            raise ConfigError(f"{str(out)!r} is a folder: give a file name that ends with .html.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):      # known beforehand: the page may take minutes to make
            pass
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error
    return path


def _written(content: bytes, path: Path) -> Path:
    from zoo.storage import place

    try:
        place(content, path)
    except OSError as error:
        raise _refused(path, error) from error
    return path


def _refused(path: Path, error: OSError | ValueError) -> RunError:
    reason = getattr(error, "strerror", None) or str(error)
    return RunError(f"{path} cannot be written ({reason}): give another place for the page, as --out FILE.html.")
