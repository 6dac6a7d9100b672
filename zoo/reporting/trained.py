"""The networks that a run has come to: its model, the delta it left, or those of its newest checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.documents import mapping
from zoo.errors import ConfigError, RunError, WeightsError
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
    from zoo import weights
    from zoo.storage import read_tensors

    found = steps(run.directory / "checkpoints")
    if not found:
        raise RunError("There is no model yet, and no checkpoint: the training writes them as it goes on.")
    settings, file = run.settings, found[-1] / "model.safetensors"
    added = mapping(settings.get("recipe")).get("added")
    grows = isinstance(added, list) and any(str(each).startswith("progressive") for each in added)
    if grows or settings.get("method") == "lora":
        raise WeightsError("There is no model yet, and networks in the middle of such a training make no samples.")
    if not file.is_file():
        raise WeightsError(f"{file} is missing: the checkpoint is incomplete.")
    tensors, critic = read_tensors(file), mapping(settings.get("critic")) or None
    config = mapping(settings.get("config"))
    model = weights.build(str(settings.get("architecture")), config, device="meta", critic=critic)
    model.follow(weights.averaged_networks(model, tensors))
    weights.check_fit(model.state_dict(), tensors, Path("checkpoints", found[-1].name, file.name))
    weights.assign(model, tensors)
    return model, f"the newest checkpoint, of step {step_of(found[-1]):,}"
