"""Going back: a training that went wrong takes up a good checkpoint, with other chance and a lower learning rate."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from zoo.errors import Diverged
from zoo.training import checkpoints, ranks
from zoo.training.checkpoints import Checkpoint
from zoo.training.faults import TRIES, Ledger

if TYPE_CHECKING:
    from zoo.training.loop import Trainer

say = logging.getLogger("zoo")


def go_back(trainer: Trainer, why: str) -> None:
    """Take up the last good checkpoint; every process must come here.

    Raises:
        Diverged: there is none, or that was done too often.
    """
    step, ledger = trainer.step, trainer.ledger
    trainer.settle()
    if trainer.accelerator.is_main_process and ledger.tries and trainer.back == trainer.saved:
        _drop_newest(trainer)      # it was not good after all
    trainer.accelerator.wait_for_everyone()      # nobody reads before the first process has put things in order
    found = None if ledger.tries >= TRIES else ranks.newest(trainer.directory, trainer.accelerator)
    if found is None:
        raise Diverged(
            f"Step {step}: {why}, after going back {ledger.tries} times: start another run with a lower lr "
            f"(now {trainer.recipe.lr:g}), or with clip_norm set."
        )
    take_up(trainer, found, why)


def take_up(trainer: Trainer, found: Checkpoint, why: str, *, watchdog: str = "") -> None:
    """Go on from a checkpoint of this training; every process must come here.

    Args:
        watchdog: what it saw, where that is the reason.
    """
    step, ledger, rollbacks = trainer.step, trainer.ledger, trainer.watch.rollbacks
    trainer.ledger = Ledger(ledger.patience)
    trainer.restore(found)
    trainer.watch.rollbacks = rollbacks
    trainer.ledger, trainer.back = ledger, found.step
    ledger.roll_back(step, found.step, why, watchdog=watchdog)
    say.warning("Step %d: %s. Back to step %d with other chance and the learning rate x %g.",
                step, why, found.step, ledger.rate)  # fmt: skip
    if trainer.accelerator.is_main_process:
        trainer.log.cut(found.step)
        trainer.trackers.go_back(found.step)
    trainer.begin_stream()
    trainer.accelerator.wait_for_everyone()      # nobody writes before everybody has read


def _drop_newest(trainer: Trainer) -> None:
    kept = checkpoints.steps(trainer.directory)
    if trainer.saver is not None and len(kept) > 1:
        checkpoints.drop_after(trainer.directory, checkpoints.step_of(kept[-2]))
