"""Foreign weights by name: fetched, converted once into zoo's cache, and from then on read from there.

``CACHE/converted/KEY/`` is a model folder; KEY comes from the sha256 of the foreign files and the version of the
conversion. ``CACHE/converted/NAME@REVISION.json`` says which KEY a name stands for, so that a second load makes no
request. CACHE is $ZOO_HOME, or ~/.cache/zoo, or what the caller gives.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import WeightsError
from zoo.home import zoo_home
from zoo.licences import non_commercial
from zoo.plugin import Weights

if TYPE_CHECKING:
    from zoo.model import Model

DRAFT = ".draft-"                # how the folders begin that are being written
DAY = 24 * 3600.0                # seconds
_KEY = re.compile(r"[0-9a-f]{64}")


def cached(name: str, entry: Weights, revision: str | None = None, cache_dir: str | Path | None = None) -> Path | None:
    """Return the folder of weights that were converted before, or None; makes no request and loads no torch."""
    place = home(cache_dir)
    note = _read(_note(name, revision or entry.revision, place))
    key = note.get("key")
    same = note.get("repo") == entry.repo and note.get("files") == list(entry.files)
    if not same or not isinstance(key, str) or not _KEY.fullmatch(key):
        return None
    return place / key if _whole(place / key) else None


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
    if not _whole(place / key):
        _convert(name, entry, files, place / key)
    note = {"key": key, "repo": entry.repo, "files": list(entry.files), "commit": there.commit}
    with suppress(OSError):      # without the note the next load asks the Hub again
        _write(_note(name, wanted, place), note)
    if non_commercial(entry.license):
        warnings.warn(f"{name} is licensed for non-commercial use only: {entry.license}.", stacklevel=2)
    return place / key


def sound(folder: Path) -> bool:
    """Return whether a folder's files are those that its manifest describes."""
    from zoo.storage import read

    try:
        read(folder)
    except WeightsError:
        return False
    return True


def forget(folder: Path) -> None:
    """Remove converted weights that turned out damaged, so that the next load converts them again."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        with suppress(OSError):
            folder.unlink()


def home(cache_dir: str | Path | None = None) -> Path:
    """Return the folder of all converted weights."""
    return Path(cache_dir or zoo_home()).expanduser() / "converted"


def _note(name: str, revision: str | None, place: Path) -> Path:
    return place / f"{name}@{(revision or 'main').replace('/', '--')}.json"


def _whole(folder: Path) -> bool:
    """Return whether a folder has the files of a model; whether these are sound shows when they are read."""
    return all((folder / name).is_file() for name in ("config.json", "model.safetensors", "manifest.json"))


def _key(files: list[Path], entry: Weights) -> str:
    from zoo.conversion import VERSION
    from zoo.storage import sha256

    digests = [sha256(file) for file in files]
    return hashlib.sha256(json.dumps([VERSION, entry.format, digests]).encode()).hexdigest()


def _convert(name: str, entry: Weights, files: list[Path], target: Path) -> None:
    """Convert files of one commit into a model folder, which appears whole or not at all."""
    from zoo import weights

    with _writable(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=target.parent))
    try:
        model = _model(name, entry, files)
        model.origin = {**model.origin, "license": entry.license}
        with _writable(target.parent):
            weights.save(model, draft)
            draft.chmod(0o755)
        if not _whole(target):                   # else another process was faster, and may be reading its folder by now
            forget(target)
            with suppress(OSError):
                draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _writable(place: Path, variable: str = "ZOO_HOME") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        advice = f"make room there, or set {variable} to a folder that can be written"
        raise WeightsError(f"{place} cannot be written ({cause}): {advice}.") from error


def _sweep(place: Path) -> None:
    """Remove the drafts of processes that were killed; those of a day may still be written."""
    for draft in place.glob(f"{DRAFT}*"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > DAY:
                forget(draft)


def _model(name: str, entry: Weights, files: list[Path]) -> Model:
    from zoo.conversion import convert

    # Only the named files: a repository may hold others beside them, of other networks or in other containers.
    with _writable(Path(tempfile.gettempdir()), "TMPDIR"):
        folder = tempfile.TemporaryDirectory(prefix="zoo-convert-")
    with folder as temporary:
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
    from zoo.storage import place

    place((json.dumps(dict(content), indent=1) + "\n").encode(), path)
