"""Foreign weights by name: fetched, converted once into zoo's cache, and from then on read from there.

``CACHE/converted/KEY/`` is a model folder; KEY comes from the sha256 of the foreign files and the version of the
conversion. ``CACHE/converted/NAME@REVISION.json`` says which KEY a name stands for, so that a second load makes no
request. CACHE is $ZOO_HOME, or ~/.cache/zoo, or what the caller gives.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import WeightsError
from zoo.home import zoo_home
from zoo.licences import non_commercial
from zoo.plugin import Weights

if TYPE_CHECKING:
    from zoo.model import Model


def cached(name: str, entry: Weights, revision: str | None = None, cache_dir: str | Path | None = None) -> Path | None:
    """Return the folder of weights that were converted before, or None; makes no request and loads no torch."""
    place = home(cache_dir)
    note = _read(_note(name, revision or entry.revision, place))
    folder = place / str(note.get("key"))
    same = note.get("repo") == entry.repo and note.get("files") == list(entry.files)
    return folder if same and (folder / "manifest.json").is_file() else None


def fetched(
    name: str, entry: Weights, *, revision: str | None, cache_dir: str | Path | None, token: str | None
) -> Path:
    """Return the folder of converted weights: from the cache, or else fetched from the Hub and converted now.

    The licence is said aloud when it forbids commercial use: the repository's own tag is often missing or wrong.

    Raises:
        HubError: the files cannot be had.
        WeightsError: they are not what the entry says.
    """
    from zoo import hub

    assert entry.repo is not None
    place, wanted = home(cache_dir), revision or entry.revision
    if (found := cached(name, entry, revision, cache_dir)) is not None:
        return found
    there = hub.fetch(entry.repo, revision=wanted, cache_dir=cache_dir, token=token, files=entry.files)
    files = [there.directory / file for file in entry.files]
    key = _key(files, entry)
    if not (place / key / "manifest.json").is_file():
        _convert(name, entry, files, place / key)
    note = {"key": key, "repo": entry.repo, "files": list(entry.files), "commit": there.commit}
    with suppress(OSError):      # without the note the next load asks the Hub again
        _write(_note(name, wanted, place), note)
    if non_commercial(entry.license):
        warnings.warn(f"{name} is licensed for non-commercial use only: {entry.license}.", stacklevel=2)
    return place / key


def forget(folder: Path) -> None:
    """Remove converted weights that turned out damaged, so that the next load converts them again."""
    shutil.rmtree(folder, ignore_errors=True)


def home(cache_dir: str | Path | None = None) -> Path:
    """Return the folder of all converted weights."""
    return Path(cache_dir or zoo_home()).expanduser() / "converted"


def _note(name: str, revision: str | None, place: Path) -> Path:
    return place / f"{name}@{(revision or 'main').replace('/', '--')}.json"


def _key(files: list[Path], entry: Weights) -> str:
    from zoo.conversion import VERSION
    from zoo.storage import sha256

    digests = [sha256(file) for file in files]
    return hashlib.sha256(json.dumps([VERSION, entry.format, digests]).encode()).hexdigest()


def _convert(name: str, entry: Weights, files: list[Path], target: Path) -> None:
    """Convert files of one commit into a model folder, which appears whole or not at all."""
    from zoo import weights

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=target.parent))
    except OSError as error:
        cause = error.strerror or type(error).__name__
        advice = "set ZOO_HOME to a folder that can"
        raise WeightsError(f"{target.parent} cannot be written ({cause}): {advice}.") from error
    try:
        model = _model(name, entry, files)
        model.origin = {**model.origin, "license": entry.license}
        weights.save(model, draft)
        if target.exists():
            forget(target)
        with suppress(OSError):                  # another process was faster: its folder holds the same
            draft.chmod(0o755)
            draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _model(name: str, entry: Weights, files: list[Path]) -> Model:
    from zoo.conversion import convert

    # Only the named files: a repository may hold others beside them, of other networks or in other containers.
    with tempfile.TemporaryDirectory(prefix="zoo-convert-") as temporary:
        for file in files:
            os.symlink(file.resolve(), Path(temporary, file.name))
        weights_files = [file.name for file in files if file.suffix != ".json"]
        whole = Path(temporary, weights_files[0]) if len(weights_files) == 1 else Path(temporary)
        model = convert(whole, format=entry.format)
    _check_expected(name, entry.expected, {"architecture": model.architecture, **model.config.model_dump()})
    return model


def _check_expected(name: str, expected: Mapping[str, object], found: Mapping[str, Any]) -> None:
    for setting, value in expected.items():
        if found.get(setting) != value:
            given = f"{setting}={found.get(setting)!r}"
            raise WeightsError(f"{name}: the file on the Hub has {given}, not {value!r}: it was exchanged; report it.")


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _write(path: Path, content: Mapping[str, object]) -> None:
    passing = path.with_name(f".{path.name}.{os.getpid()}")
    passing.write_text(json.dumps(dict(content), indent=1) + "\n", encoding="utf-8")
    passing.replace(path)
