"""How a run begins or goes on: what run.json says, whether the folder is free, and that nothing changed meanwhile."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from accelerate.utils import gather_object

from zoo.critics import described as described_critic
from zoo.errors import ConfigError, RunError
from zoo.storage import place
from zoo.training import checkpoints, ranks
from zoo.training.run import Run
from zoo.versions import versions
from zoo.watchdog.holdout import divided, spare

if TYPE_CHECKING:
    from accelerate import Accelerator

    from zoo.data import ImageSet
    from zoo.model import Model
    from zoo.recipe import Recipe
    from zoo.training.loop import Trainer

say = logging.getLogger("zoo")
SAME = ("architecture", "config", "critic", "seed", "precision", "recipe")      # what a resumed run must have as it was


def check_free(out: Path, resume: bool) -> None:
    """Refuse a folder that holds a run, unless that goes on.

    Raises:
        RunError: with what to do.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file: choose another folder for the run.")
    if (out / "run.json").exists() and not resume:
        raise RunError(f"{out} already holds a run: go on with --resume (resume=True), or choose another folder.")
    if not resume and begun(out):      # a new run would begin by removing them
        raise RunError(f"{out} holds checkpoints, but no run.json: restore that, or choose another folder.")


def described(
    model: Model, images: ImageSet, recipe: Recipe, kimg: float, seed: int, precision: str, processes: int
) -> dict[str, Any]:
    """Return what run.json says: everything that is needed to repeat the training."""
    plain = {name: value for name, value in asdict(replace(recipe, phases=())).items() if name != "phases"}
    phases = [
        {
            "name": phase.name,
            "trains": phase.trains,
            "every": phase.every,
            "rate": phase.rate,
            "frozen": phase.frozen,
            "project": None if phase.project is None else getattr(phase.project, "__name__", str(phase.project)),
            "settings": dict(phase.settings),
        }
        for phase in recipe.phases
    ]
    return {
        "architecture": model.architecture,
        "config": model.config.model_dump(),
        "critic": described_critic(model),
        "kimg": kimg,
        "seed": seed,
        "precision": precision,
        "processes": processes,
        "recipe": {**plain, "phases": phases},
        "data": {
            "name": images.name,
            "images": len(images),
            "fingerprint": images.fingerprint,
            "classes": list(images.classes),
            "skipped": len(images.skipped),
        },
        "parent": model.origin or None,
        "versions": versions(),
    }


def start(trainer: Trainer, run: Mapping[str, Any], resume: bool) -> IO[str] | None:
    """Take up the newest whole checkpoint where the run goes on, write run.json, return what keeps the folder ours.

    Raises:
        RunError: no checkpoint is whole, a setting or the data changed, or another process trains there.
    """
    check_free(trainer.out, resume)
    lock = _taken(trainer.out) if trainer.accelerator.is_main_process else None
    try:
        _take_up(trainer, run, resume)
    except BaseException:
        if lock is not None:
            lock.close()      # at once: whoever looks at the error may hold on to this frame, as a notebook does
        raise
    return lock


def _take_up(trainer: Trainer, run: Mapping[str, Any], resume: bool) -> None:
    out, accelerator = trainer.out, trainer.accelerator
    _check_alike(run, accelerator)      # and nobody writes before everybody has looked
    found = ranks.newest(out / "checkpoints", accelerator) if resume else None
    if found is None and resume and begun(out):
        raise RunError(f"None of the checkpoints in {out} is whole: restore one, or start another run.")
    if found is not None:
        _check_same(Run(out).settings, run)
        _check_versions(found.about.get("versions"))
        trainer.restore(found)
    run = {**run, "accumulate": trainer.turns.accumulate}      # as memory had it
    trainer.about = {"config": _digest(run), "versions": run["versions"]}
    if accelerator.is_main_process:
        step = -1 if found is None else found.step
        _write(run, out)
        checkpoints.drop_after(out / "checkpoints", step)
        trainer.log.cut(step)
    accelerator.wait_for_everyone()


def _write(run: Mapping[str, Any], out: Path) -> None:
    try:
        place((json.dumps(dict(run), indent=1) + "\n").encode(), out / "run.json")
    except OSError as error:
        raise RunError(f"{out}/run.json cannot be written ({error.strerror}): free some space first.") from error


def held_out(
    images: ImageSet, out: Path, resume: bool, count: int | None
) -> tuple[ImageSet, ImageSet | None]:
    """Return the images to train on and those kept out of it: a run that goes on keeps out what it began with.

    Args:
        count: to keep out of a run that begins; None: as many as can be spared.

    Raises:
        ConfigError: so many cannot be kept out.
    """
    if resume and begun(out):
        count = Run(out).settings.get("held_out", 0)
        if not isinstance(count, int) or not 0 <= count < len(images):
            given = f"{str(count)[:60]} of {len(images)} images"
            raise RunError(f"{out}/run.json says that {given} are held out: restore it.")
    elif count is None:
        count = spare(images)
    elif count >= len(images) or (count and images.groups is not None):
        raise ConfigError(f"hold_out={count}: {images.name} has {len(images)} images, and a stream can spare none.")
    return divided(images, count)


def begun(out: Path) -> bool:
    """Return whether the folder holds a checkpoint to go on from."""
    return bool(checkpoints.steps(out / "checkpoints"))


def forget(out: Path) -> None:
    """Leave the folder free for another try after a failure, if nothing was logged or saved but the beginning."""
    log = out / "log.jsonl"
    kept = checkpoints.steps(out / "checkpoints")
    if not (log.is_file() and log.stat().st_size) and not any(checkpoints.step_of(path) > 0 for path in kept):
        checkpoints.drop_after(out / "checkpoints", -1)
        (out / "run.json").unlink(missing_ok=True)


def _taken(out: Path) -> IO[str]:
    """Make the folder and hold its lock, which ends with the process, however it ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        file = (out / ".lock").open("a+")
    except OSError as error:
        raise RunError(f"{out} cannot be written to ({error.strerror}): choose another folder for the run.") from error
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        with file:
            file.seek(0)
            other = file.read(20) or "unknown"
        raise RunError(f"{out} is being trained by process {other}: choose another.") from error
    except (ImportError, OSError):      # a system or a disk without locks
        pass
    with suppress(OSError):      # a full disk: then nobody learns which process it is
        file.truncate(0)
        os.write(file.fileno(), str(os.getpid()).encode())
    return file


def _digest(run: Mapping[str, Any]) -> str:
    """Return a sha256 over what must stay the same while a run goes on."""
    fixed = {**{name: run[name] for name in SAME}, "data": run["data"]["fingerprint"]}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def _check_versions(before: object) -> None:
    now = versions()
    changed = [f"{name} {before[name]} -> {now[name]}" for name in now if before.get(name) not in (None, now[name])] \
        if isinstance(before, dict) else []  # fmt: skip
    if changed:
        say.warning("The run goes on with other versions (%s): the result may differ in the last digits.",
                    ", ".join(changed))  # fmt: skip


def _check_alike(run: Mapping[str, Any], accelerator: Accelerator) -> None:
    # An image that one process alone cannot read would give it another order of all images.
    seen = gather_object([(run["data"]["images"], run["data"]["fingerprint"])])
    if len(set(seen)) > 1:
        counts = ", ".join(f"{images}" for images, _ in seen)
        raise RunError(
            f"The processes see different data ({counts} images that can be read): put it where all can read all of it."
        )


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(dict(now)))
    for name in SAME:
        if before.get(name) != plain[name]:
            what, then, new = _differing(name, before.get(name), plain[name])
            raise RunError(
                f"This run was made with {what}={_short(then)}, now it is {_short(new)}: "
                "resume with the same settings, or start another run."
            )
    data = before.get("data")
    if not isinstance(data, dict) or data.get("fingerprint") != plain["data"]["fingerprint"]:
        raise RunError(f"The data is not what this run began with ({_short(data)}): start another run.")
    then, left = data.get("images"), plain["data"]["images"]
    if then != left:      # the same files, but some of them could not be read this time, or that time
        raise RunError(
            f"This run was made with {then} images that could be read, now there are {left}: make them as readable as "
            "they were, or start another run."
        )


def _differing(name: str, before: object, now: object) -> tuple[str, object, object]:
    """Return the first setting that differs, by its dotted name: a whole recipe would be cut off before it."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = dict(enumerate(before)), dict(enumerate(now))
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**now, **before}:
            if before.get(key) != now.get(key):
                return _differing(f"{name}.{key}", before.get(key), now.get(key))
    return name, before, now


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 120 else text[:117] + "..."
