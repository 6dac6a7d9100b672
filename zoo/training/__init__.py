"""Training and fine-tuning: from a model, images and a recipe to a run directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ConfigError, RunError, suggest
from zoo.training.run import Run

if TYPE_CHECKING:
    from accelerate import Accelerator

    from zoo.data import ImageSet
    from zoo.model import Model
    from zoo.recipe import Recipe
    from zoo.training.loop import Progress

__all__ = ["Run", "finetune", "train"]


def train(
    model: Model,
    data: str | Path | ImageSet,
    *,
    kimg: float,
    out: str | Path,
    batch: int | None = None,
    resume: bool = False,
    seed: int = 0,
    recipe: Recipe | None = None,
    settings: Mapping[str, object] | None = None,
    precision: str | None = None,
    accumulate: int = 1,
    workers: int = 0,
    tick_kimg: float = 1.0,
    sample_kimg: float = 10.0,
    checkpoint_kimg: float = 50.0,
    keep: int = 2,
    progress: Progress | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Run:
    """Train a model on images and return its run directory.

    Args:
        model: from `zoo.create` or `zoo.load`; trained in place. Networks that its weights lack start untrained.
        data: image folder, zip of one, ``emoji``, ``hf:OWNER/DATASET``, or an open `ImageSet`.
        kimg: length of the training, in thousand real images shown.
        out: the run directory; must not hold a run, unless `resume`.
        batch: images a step over all processes; None: the recipe's.
        resume: go on from the newest whole checkpoint in `out`; starts at 0 where there is none.
        seed: of everything random; the same seed and settings give the same weights.
        recipe: None: the model's own.
        settings: fields of the recipe to change, such as ``{"lr": 1e-3}``.
        precision: "no", "bf16" or "fp16"; None: what `accelerate launch` was told, else "no".
        accumulate: micro-batches that a step's share is split into, to save memory.
        workers: threads that decode images.
        tick_kimg, sample_kimg, checkpoint_kimg: how often to log, draw samples and save a checkpoint.
        keep: checkpoints kept.
        progress: called at each tick with (kimg done, kimg in all, means).
        facts: further entries for run.json, such as the parent of a fine-tune.

    Raises:
        ConfigError, DataError, RunError: with one line that says what to do.
    """
    from zoo.data import open_images
    from zoo.model import Model
    from zoo.projected import training_recipe
    from zoo.training.loop import Schedule, Trainer
    from zoo.training.settings import check_arguments

    if not isinstance(model, Model):
        raise ConfigError(f"{str(model)[:60]!r} is no model: make one with zoo.create(NAME) or zoo.load(NAME).")
    check_arguments(kimg=kimg, out=out, seed=seed, recipe=recipe, settings=settings, precision=precision,
                    accumulate=accumulate, workers=workers, tick_kimg=tick_kimg, sample_kimg=sample_kimg,
                    checkpoint_kimg=checkpoint_kimg, keep=keep)
    accelerator, precision = _engine(precision)
    model.complete()
    if batch is not None and "batch" in (settings or {}):
        raise ConfigError(f"batch is given twice, as {batch} and among the settings: keep one of them.")
    changes = {**(settings or {}), **({} if batch is None else {"batch": batch})}
    recipe = settled(recipe or training_recipe(model), changes)
    images = open_images(data, resolution=model.config.resolution, channels=model.config.channels, workers=workers)
    _check_labels(model, images)
    directory = Path(out)
    schedule = Schedule(kimg, tick_kimg, sample_kimg, checkpoint_kimg, keep)
    trainer = Trainer(
        model, images, recipe, schedule, directory,
        accelerator=accelerator, seed=seed, precision=precision, accumulate=accumulate,
    )  # fmt: skip
    described = _describe(model, images, recipe, kimg, seed, precision, accelerator.num_processes, accumulate)
    _start(trainer, {**described, **(facts or {})}, resume)
    trainer.run(progress)
    return _finish(trainer)


def finetune(
    name_or_model: str | Model,
    data: str | Path | ImageSet,
    *,
    kimg: float,
    out: str | Path,
    method: str = "auto",
    **options: Any,
) -> Run:
    """Load a pretrained model, fit it to the data's classes, choose a transfer method and train.

    Args:
        name_or_model: a name for `zoo.load`, or a model.
        method: "auto" or a name of `zoo.transfer.METHODS`; auto decides by the number of images.
        options: as of `train`.
    """
    from zoo.training.settings import check_arguments
    from zoo.transfer import prepare

    possible = [name for name in signature(train).parameters if name not in ("model", "data", "facts")]
    for name in options:
        if name not in possible:
            raise ConfigError(f"No option {name!r}.{suggest(name, possible)} Possible: {', '.join(possible)}.")
    check_arguments(kimg=kimg, out=out, **options)
    model, images, recipe, facts = prepare(name_or_model, data, method, kimg, options)
    return train(model, images, kimg=kimg, out=out, facts=facts, **{**options, "recipe": recipe})


def settled(recipe: Recipe, settings: Mapping[str, object]) -> Recipe:
    """Return the recipe with the given fields changed.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type or range.
    """
    from zoo.training.augmentation import check
    from zoo.training.settings import fitted

    possible = recipe.settings()
    for name in settings:
        if name not in possible:
            raise ConfigError(f"No setting {name!r}.{suggest(name, possible)} Recipe settings: {', '.join(possible)}.")
    values: dict[str, Any] = {name: fitted(name, value) for name, value in settings.items()}
    changed = replace(recipe, **values)
    check(changed.augment)
    return changed


def _engine(precision: str | None) -> tuple[Accelerator, str]:
    from accelerate import Accelerator

    from zoo.training.loop import PRECISIONS

    accelerator = Accelerator()
    wanted = os.environ.get("ZOO_PROCESSES")
    if wanted is not None and int(wanted) != accelerator.num_processes:
        raise RunError(
            f"{wanted} processes were asked for but {accelerator.num_processes} run together: "
            "on a CPU launch with `zoo ... --processes N` or torchrun, not `accelerate launch`."
        )
    chosen = precision or accelerator.mixed_precision
    if chosen not in PRECISIONS:
        raise ConfigError(f"No precision {chosen!r}; possible: {', '.join(PRECISIONS)}.")
    return accelerator, chosen


def _check_labels(model: Model, images: ImageSet) -> None:
    classes, found = model.config.num_classes, len(images.classes) if images.labels is not None else 0
    if classes and found != classes and (classes > 1 or found):
        raise ConfigError(
            f"The model has {classes} classes but {images.name} has {found}: give num_classes={max(1, found)} "
            "(zoo.load with adapt=True, or zoo finetune, fits a pretrained model)."
        )


def _describe(
    model: Model, images: ImageSet, recipe: Recipe, kimg: float, seed: int, precision: str, processes: int, micro: int
) -> dict[str, Any]:
    from zoo.projected import described
    from zoo.versions import versions

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
        "critic": described(model),
        "kimg": kimg,
        "seed": seed,
        "precision": precision,
        "processes": processes,
        "accumulate": micro,
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


def _start(trainer: Any, described: dict[str, Any], resume: bool) -> None:
    import json

    from zoo.training import checkpoints

    out: Path = trainer.out
    accelerator = trainer.accelerator
    if (out / "run.json").exists() and not resume:
        raise RunError(f"{out} already holds a run: go on with --resume (resume=True), or choose another folder.")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file: choose another folder for the run.")
    accelerator.wait_for_everyone()      # nobody writes before everybody has looked
    found = checkpoints.newest(out / "checkpoints") if resume else None
    if found is None and checkpoints.steps(out / "checkpoints"):
        raise RunError(f"None of the checkpoints in {out} is whole: restore one, or start another run.")
    if found is not None:
        _check_same(Run(out).settings, described)
        trainer.restore(found)
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        if found is None:
            (out / "log.jsonl").unlink(missing_ok=True)
        else:
            checkpoints.drop_after(out / "checkpoints", found.step)
        (out / "run.json").write_text(json.dumps(described, indent=1) + "\n")
    accelerator.wait_for_everyone()


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    import json

    plain = json.loads(json.dumps(dict(now)))
    for name in ("architecture", "config", "critic", "seed", "recipe"):
        if before.get(name) != plain[name]:
            what, then, new = _differing(name, before.get(name), plain[name])
            raise RunError(
                f"This run was made with {what}={_short(then)}, now it is {_short(new)}: "
                "resume with the same settings, or start another run."
            )
    data = before.get("data")
    if not isinstance(data, dict) or data.get("fingerprint") != plain["data"]["fingerprint"]:
        raise RunError(f"The data is not what this run began with ({_short(data)}): start another run.")


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


def _finish(trainer: Any) -> Run:
    import torch

    from zoo.training import log
    from zoo.weights import lineage, save

    run = Run(trainer.out)
    model = trainer.model
    model.to(memory_format=torch.contiguous_format)      # as a model that was just loaded
    model.origin, model.fresh = lineage(run.settings), ()
    if trainer.accelerator.is_main_process:
        model.finish()
        log.curves(trainer.out / "log.jsonl", trainer.out / "curves.png")
        save(model, trainer.out / "model", run=run.settings)
    trainer.accelerator.wait_for_everyone()
    return run
