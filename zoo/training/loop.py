"""The loop: it alone takes steps, follows averages, logs, saves, stops and goes back, and knows no architecture."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor

from zoo.data import ImageSet, batches
from zoo.errors import Collapsed, DataError, Interrupted, RunError
from zoo.growing import begin as begin_growth
from zoo.model import Model
from zoo.recipe import Phase, Recipe
from zoo.training import checkpoints, log, ranks
from zoo.training.averaging import agree, decay, follow
from zoo.training.faults import Ledger
from zoo.training.going_back import go_back
from zoo.training.memory import fitting
from zoo.training.optimisers import learning_rate, momenta
from zoo.training.saving import Saver
from zoo.training.schedule import Schedule
from zoo.training.signals import Stop
from zoo.training.tracking import Trackers
from zoo.training.turns import Moment, Turns
from zoo.training.watching import OnCollapse, Watch
from zoo.watchdog.look import Eye

say = logging.getLogger("zoo")
Progress = Callable[[float, float, Mapping[str, float | None]], None]     # (kimg done, kimg in all, latest means)


class Trainer:
    """One training of one model by one recipe."""

    def __init__(
        self,
        model: Model,
        images: ImageSet,
        recipe: Recipe,
        schedule: Schedule,
        out: Path,
        *,
        accelerator: Accelerator,
        seed: int,
        precision: str,
        accumulate: int,
        compile: bool,
        patience: int,
        held: ImageSet | None = None,
        on_collapse: OnCollapse = "off",
    ):
        self.accelerator, self.recipe, self.schedule, self.out, self.seed = accelerator, recipe, schedule, out, seed
        self.images = images      # but those held out
        self.model = model.follow(recipe.averaged).to(accelerator.device)
        self.model.to(memory_format=torch.channels_last)
        self._share_weights()
        begin_growth(self.model, recipe)
        self.turns = Turns(
            self.model, recipe, accelerator, precision=precision, accumulate=accumulate, compile=compile
        )
        self.steps = -(-int(schedule.kimg * 1000) // recipe.batch)
        self.step = 0
        self.ledger = Ledger(patience)
        self.watch = Watch(on_collapse, Eye(images, held, seed, mirror=recipe.mirror), accelerator)
        self.log = log.Log(out)
        self.trackers = Trackers((), accelerator, out, {}, step=0)
        self.saver: Saver | None = None         # of the first process, once the run has begun
        self.about: Mapping[str, Any] = {}      # what each checkpoint's manifest repeats of run.json
        self.seconds = 0.0                      # spent in earlier parts of a resumed run
        self.saved = -1                         # step of the newest good checkpoint
        self.back = -1                          # step that was last gone back to

    @property
    def kimg(self) -> float:
        """Thousand images shown so far."""
        return self.step * self.recipe.batch / 1000

    def run(self, progress: Progress | None = None) -> None:
        """Train from the current step to the end.

        Raises:
            Interrupted: a signal came; the training saved itself first.
            Diverged: values stayed broken however often the training went back.
            RunError: the last checkpoint could not be written.
        """
        self._begun = time.monotonic() - self.seconds
        self.model.train()
        with Stop() as stop, self._saving(), self.turns.augmenter.attached():
            self.begin_stream()
            if self._warming_up:
                say.warning("Untrained: %s. It learns alone until %g kimg.",
                            ", ".join(self.recipe.fresh), self.recipe.warmup_kimg)  # fmt: skip
            if self.saved < 0:
                self._sample(0.0)
                self._save()
            while self.step < self.steps or not self._close(progress):
                if self._take(stop):
                    go_back(self, self.ledger.why())
                    continue
                self._mark(progress)      # a resumed run goes on after it, so what is due here is due now
                if self.turns.stop and self.step < self.steps:
                    self._leave(stop)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Write checkpoints beside the training; whatever ends it, nothing is written afterwards."""
        if self.accelerator.is_main_process:
            self.saver = Saver(self.directory, self.schedule.keep)
        try:
            yield
        except DataError:      # no image was to be had between two steps; of several processes only one may know
            if self.accelerator.num_processes == 1:
                self._save()
            raise
        finally:
            self.settle()

    def fit(self) -> None:
        """Split each process's share of a batch into as few micro-batches as its memory allows, by a dry run."""
        self.model.train()
        self._stream = self._batches()
        moment = self._moment()
        self.model.advance(1.0)      # networks that grow are largest in the end
        share = len(moment.images)
        trained = [value for player in self.turns.players.values() for value in player.parameters.values()]
        states = sum(2 * value.nbytes for value in trained)      # Adam's two moments
        mine = fitting(partial(self.turns.rehearse, moment), share, states, self.accelerator.device)
        self.turns.accumulate = max(gather_object([mine]))
        say.warning("Each process takes its %d images of a step in %d micro-batches.", share, self.turns.accumulate)

    def _moment(self) -> Moment:
        progress = self.step / self.steps
        self.model.advance(progress)
        images, labels = next(self._stream)
        self._let_stand()
        lr = learning_rate(self.recipe, self.step, self.steps) * self.ledger.rate
        betas = momenta(self.recipe, progress)
        return Moment(self.step, images, labels, progress, lr, betas, self.ledger.seed(self.seed))

    def _take(self, stop: Stop) -> bool:
        """Take one step; return whether it is time to go back to the last checkpoint."""
        moment, parts = self._moment(), self.turns.accumulate
        faults = []
        for index, phase in enumerate(self.recipe.phases):
            if self.step % phase.every == 0 and not self._waits(phase):
                fault = self.turns.play(index, moment, stop)
                faults += [fault] if fault else []
        self.step += 1
        follow(self.model, decay(self.recipe, self.step * self.recipe.batch))
        self.turns.augmenter.adapt(self.recipe.batch)
        if self.turns.accumulate > parts:
            self.ledger.note({"step": moment.step, "action": "split", "accumulate": self.turns.accumulate})
            say.warning("Step %d: out of memory; from here on in micro-batches of %d images.",
                        moment.step, len(moment.images) // self.turns.accumulate)  # fmt: skip
        if faults and not self.ledger.strikes:
            say.warning("Step %d: %s: the step is left out.", faults[0].step, faults[0])
        return self.ledger.judge(faults)

    def _mark(self, progress: Progress | None) -> None:
        """Do what is due after a step: a log line, samples, a checkpoint."""
        # A checkpoint brings a tick with it: buffers are averaged before they are saved.
        saves = self._due(self.schedule.checkpoint)
        if saves or self._due(self.schedule.tick):
            self._tick(progress)
            if self.watch.act(self):
                return
        if self._due(self.schedule.sample):
            self._sample(round(int(self.kimg / self.schedule.sample + 1e-9) * self.schedule.sample, 3))
        if saves:
            self._save()

    def _close(self, progress: Progress | None) -> bool:
        """Do at the end what was not due there anyway, in a way that a longer run later on does not notice.

        Return False where the end turned out broken and the training went back.
        """
        self.model.advance(1.0)
        if self.ledger.strikes:
            go_back(self, f"at the end, {self.ledger.why()}")
            return False
        if self.saved < self.step and not self._save():
            return False
        if not self._due(self.schedule.checkpoint) and not self._due(self.schedule.tick):
            self._tick(progress, closing=True)
            self.watch.act(self)
        if not self._due(self.schedule.sample):
            self._sample(self.schedule.kimg)
        elif self.accelerator.is_main_process:
            self.log.curves()      # of the last line too
        self._written()
        return True

    @torch.no_grad()
    def _share_weights(self) -> None:
        # Processes may have drawn different random weights: the first one's count.
        if self.accelerator.num_processes > 1:
            for tensor in (*self.model.parameters(), *self.model.buffers()):
                tensor.copy_(broadcast(tensor.contiguous()))

    # Fresh networks warm up beside trained ones, which stand still until then: a discriminator that knows nothing would
    # drive a trained generator away from what it can.

    @property
    def _warming_up(self) -> bool:
        return bool(self.recipe.fresh) and self.step * self.recipe.batch < self.recipe.warmup_kimg * 1000

    def _waits(self, phase: Phase) -> bool:
        return self._warming_up and not set(phase.trains) <= set(self.recipe.fresh)

    def _let_stand(self) -> None:
        # In evaluation a network keeps its running statistics too; sampling puts the whole model back to training.
        for name, network in self.model.networks().items() if self.recipe.fresh else ():
            network.train(name in self.recipe.fresh or not self._warming_up)

    def begin_stream(self) -> None:
        """Begin to read images at the current step, and to measure speed."""
        self._stream, self._last = self._batches(), (self.step, time.monotonic())

    def _batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        self.images = self.images.to(self.accelerator.device)      # once: a second copy would stand beside the first
        return batches(
            self.images,
            batch=self.recipe.batch,
            seed=self.ledger.seed(self.seed),
            start=self.step,
            share=self.accelerator.process_index,
            shares=self.accelerator.num_processes,
            mirror=self.recipe.mirror,
            device=self.accelerator.device,
        )

    # Ticks and samples.

    def _due(self, every: float) -> bool:
        return self.step > 0 and self.schedule.due(every, self.step, self.recipe.batch)

    def _tick(self, progress: Progress | None, *, closing: bool = False) -> None:
        """Write a log line; one that only closes the run is marked, for a longer run to take away again."""
        agree(self.model, self.accelerator)
        self.seconds = time.monotonic() - self._begun
        speed = (self.step - self._last[0]) * self.recipe.batch / max(time.monotonic() - self._last[1], 1e-9)
        self._last = (self.step, time.monotonic())
        terms = self.turns.meters.means(self.accelerator)
        faults = self.ledger.report(self.step)
        watched = self.watch.look(self, terms, int(faults.get("skipped", 0)))
        line = {
            "step": self.step,
            "kimg": self.kimg,
            "lr": learning_rate(self.recipe, self.step, self.steps) * self.ledger.rate,
            "terms": terms,
            **({"augment": adapted} if (adapted := self.turns.augmenter.watch()) else {}),
            **faults,
            **watched,
            **({"closing": True} if closing else {}),
            "seconds": round(self.seconds, 3),
            "images_per_second": round(speed, 3),
        }
        if self.accelerator.is_main_process:
            self.log.append(line)
            self.trackers.line(line)
            if progress is not None:
                progress(self.kimg, self.schedule.kimg, {**terms, "images_per_second": speed})

    def _sample(self, kimg: float) -> None:
        if self.accelerator.is_main_process:
            drawn = self.log.pictures(self.model, kimg)
            if drawn is not None:
                self.trackers.picture(drawn, self.step)

    # Checkpoints, and going back to them.

    @property
    def directory(self) -> Path:
        """Where the checkpoints are."""
        return self.out / "checkpoints"

    def _save(self) -> bool:
        """Save a checkpoint, but none while a fault lasts; go back and return False where a tensor is broken."""
        optimizer = {name: value for player in self.turns.players.values() for name, value in player.state().items()}
        model = self.model.state_dict()
        broken = checkpoints.non_finite({**model, **optimizer})
        flag = torch.tensor(float(broken is not None), device=self.accelerator.device)
        if bool(self.accelerator.reduce(flag) > 0):
            go_back(self, f"{broken or 'a tensor of another process'} is not finite")
            return False
        if self.ledger.strikes:
            return True
        self.ledger.saved(self.step)
        held = ranks.gathered(self.model, self.turns.meters, self.accelerator)
        if self.saver is not None:
            about = {**self.about, "kimg": self.kimg, "processes": self.accelerator.num_processes}
            checkpoint = checkpoints.Checkpoint(self.step, model, optimizer, held, self._state(), about)
            self.saver.save(checkpoint, spared=self.watch.spared)
        self.saved = self.step
        return True

    def _state(self) -> dict[str, Any]:
        return {
            "kimg": self.kimg,
            "seconds": time.monotonic() - self._begun,
            "accumulate": self.turns.accumulate,
            "scalers": {player.name: player.scaler.state_dict() for player in self.turns.players.values()},
            "augmentation": self.turns.augmenter.state(),
            "faults": self.ledger.state(),
            "watchdog": self.watch.state(),
        }

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Take up the training where a checkpoint left it.

        Raises:
            RunError: the checkpoint is of another model, or of a longer training.
        """
        if checkpoint.step > self.steps:
            raise RunError(
                f"This run has {checkpoint.step * self.recipe.batch / 1000:g} kimg behind it, more than the "
                f"{self.schedule.kimg:g} asked for: give at least as many."
            )
        state = checkpoint.state
        try:
            self.model.load_state_dict(checkpoint.model)
            for player in self.turns.players.values():
                player.restore(checkpoint.optimizer)
                player.scaler.load_state_dict(state["scalers"][player.name])
            self.turns.augmenter.restore(state["augmentation"])
            self.turns.accumulate = self._parts(int(state["accumulate"]))
            self.seconds = float(state["seconds"])
            if not isfinite(self.seconds):
                raise ValueError(f"{self.seconds} seconds")
            self.ledger.restore(state.get("faults", {}))
            self.watch.restore(state.get("watchdog", {}))
            ranks.take_up(checkpoint.ranks, self.model, self.turns.meters, self.accelerator)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(f"The checkpoint of step {checkpoint.step} does not fit this training: {error}") from error
        self.step = self.saved = checkpoint.step

    def settle(self) -> None:
        """Return when nothing is being written any more, whether it could be written or not."""
        if self.saver is not None:
            with suppress(RunError):
                self.saver.wait()

    def _parts(self, before: int) -> int:
        """Return into how many micro-batches a step goes on: as many as before, or as are asked for if these are more.

        Where a share of the batch does not divide so, as that of fewer or more processes, what is asked for counts.
        """
        parts = max(before, self.turns.accumulate)
        return self.turns.accumulate if self.recipe.batch // self.accelerator.num_processes % parts else parts

    def _written(self) -> None:
        """Return, in every process, when the last checkpoint is on disk."""
        if self.saver is not None:
            self.saver.wait()
        self.accelerator.wait_for_everyone()

    def _leave(self, stop: Stop) -> None:
        """End the training between two steps, so that a resumed one goes on as if nothing had been."""
        if self.saved == self.step or self._save():
            self._written()      # in all processes: the end of one would end the others
        number = stop.number or signal.SIGTERM      # another process may have heard it
        raise Interrupted(
            f"stopped by {signal.Signals(number).name} at {self.kimg:g} of {self.schedule.kimg:g} kimg, "
            f"saved at {self.saved * self.recipe.batch / 1000:g}: go on with --resume.", number,
        )  # fmt: skip

    def stop_for(self, why: str) -> NoReturn:
        """End the training between two steps for what the watchdog saw.

        Raises:
            Collapsed: always.
        """
        if self.saved == self.step or self._save():
            self._written()
        raise Collapsed(
            f"{why}; stopped and saved at {self.kimg:g} of {self.schedule.kimg:g} kimg: `zoo explain {self.out}` says "
            "what to try, --resume goes on all the same."
        )
