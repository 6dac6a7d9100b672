"""The networks that a run has come to: its model, the delta it left, or those of its newest checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.errors import ConfigError, RunError
from zoo.training.directory import step_of, steps

if TYPE_CHECKING:
    from zoo.model import Model
    from zoo.training.run import Run


def networks(run: Run, parent: str | None = None) -> tuple[Model, str]:
    """Return the model of a run, and in words which state of it that is.

    Args:
        parent: name of the weights that RUN/delta is added to, of a run that has no whole model any more.

    Raises:
        WeightsError, UnknownName, HubError, ConfigError: nothing can be loaded; with the reason.
    """
    from zoo.loading import load

    whole, delta = run.directory / "model", run.directory / "delta"
    if whole.is_dir():
        if parent is not None:
            raise ConfigError(f"parent={parent!r}: {whole} is whole and needs none: leave it out.")
        return run.model, "the final model"
    if delta.is_dir():
        return load(f"dir:{delta}", parent=parent), "the final model, its delta on its parent"
    return _checkpoint(run)


def _checkpoint(run: Run) -> tuple[Model, str]:
    from zoo.training.networks import of_checkpoint

    found = steps(run.directory / "checkpoints")
    if not found:
        raise RunError("There is no model yet, and no checkpoint: the training writes them as it goes on.")
    return of_checkpoint(run, found[-1]), f"the newest checkpoint, of step {step_of(found[-1]):,}"
