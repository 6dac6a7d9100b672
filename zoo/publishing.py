"""Publish a model: its files and card are written and checked here first, then sent to the Hub in one commit."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from zoo.errors import HubError, RunError, UnknownName, WeightsError
from zoo.hub import Publication, upload
from zoo.repositories import Repo
from zoo.versions import versions

if TYPE_CHECKING:
    from zoo.model import Model
    from zoo.training.run import Run

__all__ = ["Publication", "publish"]

SAMPLES = "samples.png"
_COUNTS = {64: 64, 256: 16}      # up to so many pixels -> images in the picture; above: 4


@dataclass(frozen=True)
class _Source:
    """What is published, and all that is recorded about it."""

    model: Model
    folder: Path | None = None                     # its files, where they exist already
    run: Mapping[str, Any] | None = None           # run.json
    evaluation: Mapping[str, Any] | None = None    # evaluation.json, if it is about these weights
    home: Path | None = None                       # the run directory


def publish(
    model_or_run: Model | Run | str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    dry_run: bool = False,
) -> Publication:
    """Publish a model on the Hub, in one commit; nothing is committed where the repository holds it already.

    Before the first request the files are written, read again, and their samples compared bit for bit with the model's.

    Args:
        model_or_run: a model, a `Run`, the path of a run directory or of a saved model, or a name for `zoo.load`.
        repo_id: ``OWNER/REPO``; made if it is not there.
        private: make the repository private; a public one is refused.
        token: None uses the saved login.
        dry_run: send nothing: write the files to RUN/publish, or OWNER--REPO in the working directory.

    Returns:
        `Publication`: `url`, `commit` (both "" for a dry run), `created`, `files`, and `directory` for a dry run.

    Raises:
        WeightsError: the weights hold values that are not finite, or do not survive being written and read.
        RunError: the path holds neither a run nor a model, or the run has no model yet.
        HubError: the name, the access or the network is at fault.
    """
    place = Repo.parse(repo_id)
    if place.revision is not None:
        raise HubError(f"{repo_id!r}: a publication goes to the main branch; write {place.id}.")
    source = _opened(model_or_run)
    with TemporaryDirectory(prefix="zoo-publish-") as temporary:
        folder = Path(temporary)
        _write(source, folder, place.id)
        files = {path.name: path for path in sorted(folder.iterdir())}
        if dry_run:
            target = source.home / "publish" if source.home else Path(f"{place.owner}--{place.name}")
            return Publication("", "", created=False, files=tuple(files), directory=_placed(files, target))
        message = f"Publish {source.model.architecture} model, zoo {versions()['zoo']}"
        return upload(place.id, files, message=message, private=private, token=token)


def _opened(given: Model | Run | str | Path) -> _Source:
    from zoo.loading import load
    from zoo.model import Model
    from zoo.training.run import Run

    if isinstance(given, Model):
        return _Source(given)
    if isinstance(given, Run):
        return _of_run(given)
    if not isinstance(given, str | Path):
        raise UnknownName(f"{type(given).__name__} is neither a model nor a run: give one, a name or a path.")
    path = Path(given)
    if os.path.isfile(path / "run.json"):
        return _of_run(Run.open(path))
    if path.name == "model" and os.path.isfile(path.parent / "run.json"):
        return _of_run(Run.open(path.parent))
    if os.path.isfile(path / "config.json"):
        return _Source(load(f"dir:{path}"), path)
    if os.path.isdir(path) or isinstance(given, Path):
        raise RunError(f"{path} holds neither a run (run.json) nor a model (config.json): give the folder of one.")
    return _Source(load(given))


def _of_run(run: Run) -> _Source:
    from zoo.metrics.features import digest

    folder = run.directory / "model"
    if not (folder / "config.json").is_file():
        raise RunError(f"{run.directory} has no model yet: go on with its training until the end (--resume).")
    model, evaluation = run.model, run.evaluation
    if evaluation is not None and not _about(evaluation, digest(model.state_dict())):
        stale = run.directory / "evaluation.json"
        warnings.warn(f"{stale} is about other weights: left out of the card; evaluate the run again.", stacklevel=4)
        evaluation = None
    return _Source(model, folder, run.facts, evaluation, run.directory)


def _about(evaluation: Mapping[str, Any], weights: str) -> bool:
    """Return whether an evaluation.json, whatever it holds, is about the weights of this digest."""
    try:
        return bool(evaluation["receipt"]["model"]["digest"] == weights)
    except (KeyError, TypeError):
        return False


def _write(source: _Source, folder: Path, repo_id: str) -> None:
    """Write the files of a published model into an empty folder and check them.

    Raises:
        WeightsError: values that are not finite, or samples that differ after reading.
    """
    import torch

    from zoo import storage, weights
    from zoo.cards import render
    from zoo.images import save_grid
    from zoo.loading import made_whole

    if source.folder is None:
        weights.save(source.model, folder)
    else:
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(source.folder / name, folder / name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(_without_folders(config), indent=1) + "\n", encoding="utf-8")
    # On the CPU, where the same weights give the same bits; transposed convolutions on a GPU need not.
    original = source.model if source.model.device.type == "cpu" else deepcopy(source.model).cpu()
    reloaded = weights.load(folder, verify=False, whole=made_whole)
    before, after = weights.golden_sample(original), weights.golden_sample(reloaded)
    if not bool(torch.isfinite(before).all()):
        raise WeightsError("The model's samples hold values that are not finite: it is broken and is not published.")
    if not torch.equal(before, after):
        raise WeightsError("The model's samples changed by writing and reading its weights: it is not published.")
    size = source.model.config.resolution
    count = next((count for pixels, count in _COUNTS.items() if size <= pixels), 4)
    save_grid(reloaded.sample(count, seed=0, labels=reloaded.each_class(count)), folder / SAMPLES)
    card = render(source.model, run=source.run, evaluation=source.evaluation, repo_id=repo_id, samples=SAMPLES)
    (folder / "README.md").write_text(card, encoding="utf-8")
    storage.write_manifest(folder, *weights.golden_hash(reloaded))
    storage.read(folder)


def _without_folders(value: Any) -> Any:
    """Return config.json's content with data sets named without the folders they lie in: these are private."""
    from zoo.cards import public_name

    if not isinstance(value, dict):
        return value
    plain = {name: _without_folders(inner) for name, inner in value.items()}
    data = plain.get("data")
    if isinstance(data, dict) and isinstance(data.get("name"), str):
        plain["data"] = {**data, "name": public_name(data["name"])}
    return plain


def _placed(files: Mapping[str, Path], target: Path) -> Path:
    """Copy files into a folder, which keeps what else it holds."""
    if target.exists() and not target.is_dir():
        raise RunError(f"{target} is a file: move it away, the dry run writes a folder of that name.")
    target.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        shutil.copyfile(path, target / name)
    return target
