"""The folder that holds a run's checkpoints: how one is named, published by a rename, replaced and removed.

A folder is named after its step, ``00001234``. What begins with a dot is on its way in or out: ``.draft-`` is being
written, ``.old-`` removed, and ``.replaced-`` keeps the checkpoint of a step until another one of it is in place.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from errno import EDQUOT, ENOSPC
from pathlib import Path

from zoo.errors import RunError

_STEP = re.compile(r"(?:\.replaced-)?(\d{8,18})", re.ASCII)
_LEFTOVER = re.compile(r"\.(?:draft|old)-\d+", re.ASCII)


def steps(directory: Path) -> list[Path]:
    """Return the checkpoints, oldest step first: all that is named as one, whole or not.

    Raises:
        RunError: the directory is there but cannot be listed.
    """
    found: dict[int, Path] = {}
    for name in sorted(_listed(directory)):      # a dot comes before digits: what is in place counts
        match = _STEP.fullmatch(name)
        if match and named(int(match[1])) == match[1]:
            found[int(match[1])] = directory / name
    return [found[step] for step in sorted(found)]


def named(step: int) -> str:
    """Return the name of a step's folder."""
    return f"{step:08d}"


def step_of(path: Path) -> int:
    """Return the step that a folder is named after.

    Raises:
        RunError: it is named otherwise.
    """
    match = _STEP.fullmatch(path.name)
    if match is None:
        raise RunError(f"{path} is no checkpoint: one is named after its step, such as {named(1234)}.")
    return int(match[1])


def prepare(directory: Path) -> None:
    """Make the folder, durably, and clear away what a crashed run left half written or half removed.

    Raises:
        RunError: it cannot be made or written to.
    """
    try:
        make(directory)
        probe = draft_of(directory, 0)      # whether it may be written to is known by writing
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise refused(directory, "Checkpoints", error) from error


def make(directory: Path) -> None:
    """As `prepare`, without trying to write; raises OSError."""
    if not directory.is_dir():
        directory.mkdir(parents=True)
        sync(directory.parent)
    clear(directory)


def draft_of(directory: Path, step: int) -> Path:
    """Return where the checkpoint of a step is written."""
    return directory / f".draft-{named(step)}"


def publish(draft: Path, step: int) -> Path:
    """Give a durable draft its name, durably; at every instant one whole checkpoint of the step can be found."""
    final = draft.with_name(named(step))
    replaced = draft.with_name(f".replaced-{final.name}")
    if os.path.lexists(final):      # the same step once more: after a rollback, or the last save of a stopped run
        _delete(replaced)
        final.rename(replaced)
    draft.rename(final)
    sync(draft.parent)
    _delete(replaced)
    return final


def prune(directory: Path, keep: int, *, spared: int | None = None) -> None:
    """Remove all but the newest `keep` checkpoints, each first renamed out of the way, and what a crashed run left.

    Args:
        spared: the newest checkpoint up to this step stays as well.

    Raises:
        RunError: one cannot be removed.
    """
    clear(directory)
    found = steps(directory)
    good = [path for path in found if spared is not None and step_of(path) <= spared][-1:]
    for path in found[:-keep]:
        if path not in good:
            _remove(path)


def drop_after(directory: Path, step: int) -> None:
    """Remove the checkpoints of later steps: damaged ones that a resumed run passed over and will write again.

    Raises:
        RunError: one cannot be removed.
    """
    clear(directory)
    for path in steps(directory):
        if step_of(path) > step:
            _remove(path)


def clear(directory: Path) -> None:
    """Remove what a crashed run left half written or half removed."""
    for name in _listed(directory):
        replaced = name.startswith(".replaced-") and os.path.lexists(directory / name.removeprefix(".replaced-"))
        if replaced or _LEFTOVER.fullmatch(name):
            _delete(directory / name)


def sync(path: Path) -> None:
    """Wait until the disk has a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refused(directory: Path, what: str, error: OSError) -> RunError:
    """Return the one line for a failure to write."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return RunError(f"{what}: {directory} is a file or lies in one, but must be a folder: choose another.")
    if error.errno in (ENOSPC, EDQUOT):
        return RunError(f"{what} cannot be written: {directory} ran full; older checkpoints stay. Free some space.")
    return RunError(
        f"{what} cannot be written to {directory} ({error.strerror}); older checkpoints stay. Make it writable, or "
        "choose another folder."
    )


def _listed(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(
            f"{directory} cannot be read as a folder of checkpoints ({error.strerror}): make it readable, or choose "
            "another."
        ) from error


def _remove(path: Path) -> None:
    old = path.with_name(f".old-{named(step_of(path))}")
    _delete(old)
    try:
        path.rename(old)
    except OSError as error:
        raise RunError(
            f"Checkpoint {path} cannot be removed ({error.strerror}): make its folder writable, or remove it yourself."
        ) from error
    _delete(old)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
