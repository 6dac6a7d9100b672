"""Training and fine-tuning: from a model, images and a recipe to a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zoo.errors import ConfigError, RunError, suggest
from zoo.training.run import Run

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.model import Model
    from zoo.recipe import Recipe
    from zoo.training.loop import Progress, Trainer
    from zoo.training.watching import OnCollapse

__all__ = ["Run", "finetune", "train"]


def train(
    model: Model,
    data: str | Path | ImageSet,
    *,
    kimg: float,
    out: str | Path,
    batch: int | Literal["auto"] | None = None,
    resume: bool = False,
    seed: int = 0,
    recipe: Recipe | None = None,
    settings: Mapping[str, object] | None = None,
    add: Sequence[str] = (),
    precision: str | None = None,
    accumulate: int = 1,
    compile: bool = False,
    workers: int = 0,
    tick_kimg: float = 1.0,
    sample_kimg: float = 10.0,
    checkpoint_kimg: float = 50.0,
    keep: int = 2,
    patience: int = 5,
    on_collapse: OnCollapse = "warn",
    hold_out: int | None = None,
    track: Sequence[str] = (),
    progress: Progress | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Run:
    """Train a model on images and return its run directory.

    Args:
        model: from `zoo.create` or `zoo.load`; trained in place. Networks that its weights lack start untrained.
        data: image folder, zip of one, tar shards, ``emoji``, ``hf:OWNER/DATASET``, ``hf-stream:OWNER/DATASET``, or an
            open `ImageSet`.
        kimg: length of the training, in thousand real images shown.
        out: the run directory; must not hold a run, unless `resume`.
        batch: images a step over all processes; None: the recipe's; "auto": the recipe's, in as few micro-batches as
            memory allows, found by a dry run.
        resume: go on from the newest whole checkpoint in `out`; starts at 0 where there is none.
        seed: of everything random; the same seed and settings give the same weights.
        recipe: None: the model's own.
        settings: fields of the recipe to change, such as ``{"lr": 1e-3}``.
        add: what the recipe is given from outside, such as ``["r1:gamma=1", "pacgan:m=2"]``; see `zoo recipes`.
        precision: "no", "bf16" or "fp16"; None: what `accelerate launch` was told, else "no".
        accumulate: micro-batches that a step's share is split into, to save memory.
        compile: run the phases that allow it through torch.compile; a phase that differentiates twice does not.
        workers: threads that decode images.
        tick_kimg, sample_kimg, checkpoint_kimg: how often to log, draw samples and save a checkpoint.
        keep: checkpoints kept.
        patience: steps in a row with values that are not finite, each left out, before the training goes back to the
            last good checkpoint, with other chance and half the learning rate.
        on_collapse: what is done when the watchdog sees the training go wrong: "warn" says so, "stop" saves and ends,
            "rollback" goes back to a checkpoint from before, with other chance and half the learning rate; "off": it
            does not look.
        hold_out: images kept out of the training, by which the watchdog knows whether the critic learns the others by
            heart; None: 1 % of sets of 6,400 and more, at most 256. A run that goes on keeps those that it began with.
        track: trackers of Accelerate, such as "tensorboard", that show what log.jsonl says.
        progress: called at each tick with (kimg done, kimg in all, means).
        facts: further entries for run.json, such as the parent of a fine-tune.

    Raises:
        ConfigError, DataError, RunError: with one line that says what to do.
        Interrupted: SIGTERM or Ctrl-C came; the training saved itself first and goes on with `resume`.
        Diverged: values stayed broken; the last good checkpoint is kept.
        Collapsed: the watchdog stopped the training; it goes on with `resume`.
        Lost: another process of the training died or hangs.
    """
    from zoo.training import starting
    from zoo.training.engine import check_division, engine, together
    from zoo.training.loop import Trainer
    from zoo.training.schedule import Schedule
    from zoo.training.settings import check_arguments
    from zoo.training.tracking import check as check_trackers

    _check_model(model)
    check_arguments(kimg=kimg, out=out, seed=seed, recipe=recipe, settings=settings, precision=precision,
                    accumulate=accumulate, compile=compile, workers=workers, tick_kimg=tick_kimg,
                    sample_kimg=sample_kimg, checkpoint_kimg=checkpoint_kimg, keep=keep, patience=patience,
                    on_collapse=on_collapse, hold_out=hold_out, track=track)
    check_trackers(track)
    directory = Path(out)
    starting.check_free(directory, resume)
    accelerator, precision = engine(precision)
    model.complete()
    recipe = _whole(recipe, model, _with_batch(settings or {}, batch, accumulate), add)
    images = _opened(data, model, workers)
    check_division(recipe.batch, len(images), accelerator.num_processes, accumulate)
    shown, held = starting.held_out(images, directory, resume, hold_out if on_collapse != "off" else 0)
    with together():
        trainer = Trainer(
            model, shown, recipe, Schedule(kimg, tick_kimg, sample_kimg, checkpoint_kimg, keep), directory,
            accelerator=accelerator, seed=seed, precision=precision, accumulate=accumulate, compile=compile,
            patience=patience, held=held, on_collapse=on_collapse,
        )  # fmt: skip
        if batch == "auto" and not (resume and starting.begun(directory)):      # a run that goes on keeps what it found
            trainer.fit()
        described = starting.described(model, images, recipe, kimg, seed, precision, accelerator.num_processes)
        described |= {"compile": compile, "patience": patience, "schedule": asdict(trainer.schedule), **(facts or {})}
        described |= {"on_collapse": on_collapse, "held_out": 0 if held is None else len(held)}
        return _carried_out(trainer, described, resume, track, progress)


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
    from zoo.additions.apply import added
    from zoo.training import starting
    from zoo.training.settings import check_arguments
    from zoo.transfer import prepare

    possible = [name for name in signature(train).parameters if name not in ("model", "data", "facts")]
    for name in options:
        if name not in possible:
            raise ConfigError(f"No option {name!r}.{suggest(name, possible)} Possible: {', '.join(possible)}.")
    check_arguments(kimg=kimg, out=out, **options)
    starting.check_free(Path(out), options.get("resume", False))
    settings = _with_batch(options.get("settings") or {}, options.get("batch"), options.get("accumulate", 1))

    def chosen(model: Model, recipe: Recipe) -> Recipe:
        return added(model, settled(recipe, settings), options.get("add", ()))

    model, images, recipe, facts = prepare(name_or_model, data, method, kimg, options, chosen)
    return train(model, images, kimg=kimg, out=out, facts=facts, **{**options, "recipe": recipe, "add": ()})


def settled(recipe: Recipe, settings: Mapping[str, object]) -> Recipe:
    """Return the recipe with the given fields changed.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type or range.
    """
    from zoo.adversarial import adversarial_of, with_adversarial
    from zoo.losses import adversarial
    from zoo.training.augmentation import check
    from zoo.training.settings import fitted

    possible = recipe.settings()
    for name in settings:
        if name not in possible:
            near = suggest(str(name), possible)
            raise ConfigError(f"No setting {name!r}.{near} Recipe settings: {', '.join(possible)}.")
    given = {**{name: getattr(recipe, name) for name in possible}, **settings}      # a recipe may be a stranger's
    values: dict[str, Any] = {name: fitted(name, value) for name, value in given.items()}
    changed = replace(recipe, **values)
    check(changed.augment)
    if changed.loss is not None and adversarial_of(changed).name.partition(":")[0] != changed.loss:
        changed = with_adversarial(changed, adversarial(changed.loss))
    return changed


def _whole(recipe: Recipe | None, model: Model, settings: Mapping[str, object], add: Sequence[str]) -> Recipe:
    from zoo.additions.apply import added
    from zoo.critics import training_recipe
    from zoo.training.contract import check_recipe

    chosen = added(model, settled(recipe or training_recipe(model), settings), add)
    check_recipe(chosen, model)
    return chosen


def _with_batch(settings: Mapping[str, object], batch: object, accumulate: int) -> dict[str, object]:
    if batch == "auto" and accumulate > 1:
        raise ConfigError(f"batch='auto' finds how to split a step, so accumulate={accumulate} is one too many.")
    if batch is None or batch == "auto":
        return dict(settings)
    if "batch" in settings:
        raise ConfigError(f"batch is given twice, as {batch} and among the settings: keep one of them.")
    return {**settings, "batch": batch}


def _check_model(model: object) -> None:
    from zoo.model import Model

    if not isinstance(model, Model):
        raise ConfigError(f"{str(model)[:60]!r} is no model: make one with zoo.create(NAME) or zoo.load(NAME).")


def _opened(data: str | Path | ImageSet, model: Model, workers: int) -> ImageSet:
    from zoo.data import open_images

    images = open_images(data, resolution=model.config.resolution, channels=model.config.channels, workers=workers)
    _check_labels(model, images)
    return images


def _check_labels(model: Model, images: ImageSet) -> None:
    classes, found = model.config.num_classes, len(images.classes) if images.labels is not None else 0
    if classes and found != classes and (classes > 1 or found):
        raise ConfigError(
            f"The model has {classes} classes but {images.name} has {found}: give num_classes={max(1, found)} "
            "(zoo.load with adapt=True, or zoo finetune, fits a pretrained model)."
        )


def _carried_out(
    trainer: Trainer, described: Mapping[str, Any], resume: bool, track: Sequence[str], progress: Progress | None
) -> Run:
    from zoo.training import starting
    from zoo.training.memory import ran_out
    from zoo.training.tracking import Trackers

    lock = starting.start(trainer, described, resume)
    trainer.trackers = Trackers(track, trainer.accelerator, trainer.out, described, step=trainer.step)
    try:
        trainer.run(progress)
        return _finish(trainer)
    except Exception as error:
        if lock is not None:
            starting.forget(trainer.out)
        if ran_out(error):
            raise RunError(
                "Out of memory beside the images of a step, as for optimisers or averages: use a smaller model, "
                "or more memory, and go on with --resume."
            ) from error
        raise
    finally:
        trainer.trackers.finish()
        if lock is not None:
            lock.close()


def _finish(trainer: Trainer) -> Run:
    import torch

    from zoo import deltas
    from zoo.lowrank import merge
    from zoo.storage import replaced
    from zoo.training.signals import Stop
    from zoo.transfer.realism import let_go
    from zoo.weights import lineage, save

    run = Run(trainer.out)
    model = trainer.model
    model.to(memory_format=torch.contiguous_format)      # as a model that was just loaded
    settings = run.facts
    model.origin, model.fresh = lineage(settings), ()
    with Stop():      # nearly done: a signal changes nothing any more
        merge(model)
        let_go(model)
        model.finish()
        if trainer.accelerator.is_main_process:
            replaced(trainer.out / "model", partial(save, model, run=settings))
            if deltas.possible(model):
                replaced(trainer.out / "delta", partial(deltas.save, model, run=settings))
        trainer.accelerator.wait_for_everyone()
    return run
