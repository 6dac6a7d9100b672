"""The networks of a checkpoint, as a model that makes samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.documents import mapping
from zoo.errors import WeightsError

if TYPE_CHECKING:
    from zoo.model import Model
    from zoo.training.run import Run


def of_checkpoint(run: Run, folder: Path) -> Model:
    """Return the model of a run as a checkpoint holds it, averaged weights included, on the CPU.

    Args:
        folder: the checkpoint, one of RUN/checkpoints.

    Raises:
        WeightsError: its weights are missing, damaged or of another model, or make no samples before the end.
        RunError, UnknownName, ConfigError: run.json does not say which model it is.
    """
    from zoo import weights
    from zoo.storage import read_tensors

    settings, file = run.settings, folder / "model.safetensors"
    added = mapping(settings.get("recipe")).get("added")
    grows = isinstance(added, list) and any(str(each).startswith("progressive") for each in added)
    if grows or settings.get("method") == "lora":
        raise WeightsError("Networks in the middle of such a training (progressive, lora) make no samples.")
    if not file.is_file():
        raise WeightsError(f"{file} is missing: the checkpoint is incomplete.")
    tensors, critic = read_tensors(file), mapping(settings.get("critic")) or None
    config = mapping(settings.get("config"))
    model = weights.build(str(settings.get("architecture")), config, device="meta", critic=critic)
    model.follow(weights.averaged_networks(model, tensors))
    weights.check_fit(model.state_dict(), tensors, Path("checkpoints", folder.name, file.name))
    weights.assign(model, tensors)
    return model
