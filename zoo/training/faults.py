"""Values that are not finite: named in the step that made them, left out, and after several in a row rolled back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from zoo.errors import RunError
from zoo.noise import key
from zoo.training.tensorfile import non_finite

SHOWN = 10           # faults that one log line names; all of them are counted
TOLD = 100           # log lines with faults, the latest ones, that are told again when going back takes them away
TRIES = 3            # rollbacks without a checkpoint beyond them before the training gives up
MOST = 1 << 53        # that anything is counted to: beyond it a float skips numbers
SLOWER = 0.5         # what a rollback multiplies the learning rate with


@dataclass(frozen=True)
class Fault:
    """One phase's turn that was left out."""

    step: int
    phase: str
    term: str        # the first term that is not finite, or "gradient"
    value: str       # inf, -inf or nan
    tensor: str      # the first tensor that is not finite, on the way from the images to the gradients

    def __str__(self) -> str:
        where = f", first in {self.tensor}" if self.tensor else ""
        return f"{self.phase}.{self.term} became {self.value}{where}"


class Ledger:
    """Counts steps with a fault in a row and rollbacks, and says what they change: chance and the learning rate."""

    def __init__(self, patience: int):
        self.patience = patience
        self.strikes = 0                                # steps with a fault in a row, up to now
        self.rollbacks = 0                              # in the whole training
        self.tries = 0                                  # rollbacks since a checkpoint beyond all of them
        self._reached = 0                               # step beyond which the training never came
        self._records: list[dict[str, Any]] = []        # since the last log line
        self._skipped = 0
        self._told: list[tuple[int, dict[str, Any]]] = []      # (step, report) of log lines with faults
        self._latest = ""

    @property
    def rate(self) -> float:
        """What the learning rate is multiplied with."""
        return float(SLOWER**self.rollbacks)

    def seed(self, seed: int) -> int:
        """Return the seed of the training's chance: another one after each rollback."""
        return key("again", seed, self.rollbacks) if self.rollbacks else seed

    def judge(self, faults: list[Fault]) -> bool:
        """Note the faults of a step; return whether it is time to go back to the last good checkpoint."""
        self.strikes = self.strikes + 1 if faults else 0
        for fault in faults:
            self._skipped += 1
            self.note({**asdict(fault), "action": "skipped"})
            self._latest = str(fault)
        return self.strikes >= self.patience

    def why(self) -> str:
        """Return why it is time to go back, with the latest fault by name."""
        return f"{self.strikes} steps in a row had values that are not finite: {self._latest}"

    def roll_back(self, step: int, to: int, why: str, *, watchdog: str = "") -> None:
        """Note that a training goes back from a step to that of a checkpoint; the watchdog counts its own tries."""
        self.strikes, self.rollbacks, self.tries = 0, self.rollbacks + 1, self.tries + (not watchdog)
        self._reached = max(self._reached, step)
        gone = [said for line, said in self._told if line > to]
        self._told = [(line, said) for line, said in self._told if line <= to]
        self._skipped += sum(said["skipped"] for said in gone)
        record = {"step": step, "action": "rolled back", "to": to, "why": why, "rate": self.rate}
        record |= {"watchdog": watchdog} if watchdog else {}
        before = [*(each for said in gone for each in said["faults"]), *self._records]
        self._records = [*before[: SHOWN - 1], record]

    def saved(self, step: int) -> None:
        """Note a new checkpoint; one beyond the steps that were gone back from ends the count of tries."""
        if step > self._reached:
            self.tries = 0

    def note(self, record: dict[str, Any]) -> None:
        """Keep what happened for the next log line."""
        if len(self._records) < SHOWN:
            self._records.append(record)

    def report(self, step: int) -> dict[str, Any]:
        """Return what happened since the last log line, for that of a step; empty where all went well."""
        said: dict[str, Any] = {"skipped": self._skipped, "faults": self._records} if self._records else {}
        self._records, self._skipped = [], 0
        if said:
            self._told = [*self._told, (step, said)][-TOLD:]
        return said

    def state(self) -> dict[str, Any]:
        """Return everything as JSON, for a checkpoint."""
        return {
            "strikes": self.strikes,
            "rollbacks": self.rollbacks,
            "tries": self.tries,
            "reached": self._reached,
            "records": self._records,
            "skipped": self._skipped,
            "told": self._told,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned.

        Raises:
            RunError: it is not what `state` returns.
        """
        try:
            counts = [int(state[name]) for name in ("strikes", "rollbacks", "tries", "reached", "skipped")]
            if not all(0 <= count < MOST for count in counts):
                raise ValueError(f"it counts {counts}")
            self.strikes, self.rollbacks, self.tries, self._reached, self._skipped = counts
            self._records = [dict(record) for record in state["records"]]
            self._told = [(int(line), dict(said)) for line, said in state["told"]]
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"The checkpoint's record of faults is damaged ({error}): use an older one.") from error


class Witness:
    """Watches a model's forward passes while used as a context: `seen` is the first module whose output is not finite.

    Modules report as they end, so the innermost one is named.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._hooks = ExitStack()
        self.seen = ""

    def __enter__(self) -> Witness:
        for name, module in self._model.named_modules():
            if name:
                handle = module.register_forward_hook(partial(self._look, name))
                self._hooks.callback(handle.remove)
        return self

    def __exit__(self, *ended: object) -> None:
        self._hooks.close()

    def _look(self, name: str, module: nn.Module, inputs: object, output: object) -> None:
        if not self.seen and isinstance(output, Tensor) and non_finite({name: output}):
            self.seen = f"the output of {name}"
