"""The watchdog in a training: looks when it is time, tells all processes the same, warns, stops or has it go back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from accelerate import Accelerator
from accelerate.utils import gather_object

from zoo.training import checkpoints, ranks
from zoo.training.going_back import take_up
from zoo.training.memory import give_back, ran_out
from zoo.watchdog.history import Finding, History
from zoo.watchdog.look import Eye
from zoo.watchdog.readings import Seen

if TYPE_CHECKING:
    from zoo.model import Model
    from zoo.training.loop import Trainer

say = logging.getLogger("zoo")
OnCollapse = Literal["off", "warn", "stop", "rollback"]
WAYS_BACK = 3      # that a training goes back for what the watchdog sees, before it stops


class Watch:
    """The watchdog of one training. All processes come to `look` and `act`, and do the same there."""

    def __init__(self, policy: OnCollapse, eye: Eye, accelerator: Accelerator):
        self.policy: OnCollapse = policy
        self.history = History()
        self.rollbacks = 0
        self._eye, self._accelerator = eye, accelerator
        self._pending: list[Finding] = []      # seen just now, and not acted upon yet

    def look(self, trainer: Trainer, terms: Mapping[str, float | None], skipped: int) -> dict[str, Any]:
        """Return what a log line tells, once enough images were shown since the last look; nothing until then."""
        if self.policy == "off" or not self.history.due(trainer.step * trainer.recipe.batch):
            return {}
        mine = self._seen(trainer.model) if self._accelerator.is_main_process else Seen()
        seen: Seen = gather_object([mine])[0]
        self._pending = self.history.add(
            trainer.step, trainer.recipe.batch, trainer.schedule.kimg * 1000, terms, seen, skipped
        )
        findings = [finding.report() for finding in self.history.findings]
        latest = self.history.latest
        told = {name: latest[name] for name in (*seen.numbers, "drift", "strayed") if name in latest}
        return {"watchdog": told, **({"findings": findings} if findings else {})}

    def act(self, trainer: Trainer) -> bool:
        """Do what the policy asks for what was seen just now; return whether the training went back.

        At the end of a training there is nothing to stop or to go back for: it is only said.

        Raises:
            Collapsed: the training stops, with its last state saved.
        """
        pending, self._pending = self._pending, []
        acts = trainer.step < trainer.steps
        for finding in pending:
            if acts and self.policy == "stop":
                trainer.stop_for(f"Step {trainer.step}: {finding}")
            if acts and self.policy == "rollback" and finding.curable:
                self._go_back(trainer, finding)
                return True
            say.warning("Step %d: %s.", trainer.step, finding)
        return False

    def _go_back(self, trainer: Trainer, finding: Finding) -> None:
        why = f"Step {trainer.step}: {finding}"
        if self.rollbacks >= WAYS_BACK:
            trainer.stop_for(f"{why}, after going back {self.rollbacks} times")
        trainer.settle()
        if self._accelerator.is_main_process:
            checkpoints.drop_after(trainer.directory, finding.good)
        self._accelerator.wait_for_everyone()
        found = ranks.newest(trainer.directory, self._accelerator)
        if found is None:
            trainer.stop_for(f"{why}, and no checkpoint is from before")
        take_up(trainer, found, str(finding), watchdog=finding.name)
        self.rollbacks += 1

    @property
    def spared(self) -> int | None:
        """The step up to which the newest checkpoint is kept whatever comes, to go back to; None where none is."""
        return self.history.good if self.policy == "rollback" else None

    def _seen(self, model: Model) -> Seen:
        try:
            return self._eye.look(model)
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            give_back()
            return Seen()

    def state(self) -> dict[str, Any]:
        """Return everything as JSON, for a checkpoint."""
        return {**self.history.state(), "rollbacks": self.rollbacks}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned; nothing of a checkpoint from before there was a watchdog."""
        self.history.restore(state)
        self.rollbacks = int(state.get("rollbacks", 0))
