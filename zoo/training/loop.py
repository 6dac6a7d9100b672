"""The loop: it alone freezes, accumulates, averages, steps, projects, follows and saves, and knows no architecture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from zoo.data import ImageSet, batches, normalise
from zoo.errors import ConfigError, Diverged, RunError
from zoo.model import Model
from zoo.noise import Noise, key
from zoo.recipe import Batch, Phase, Recipe, Terms
from zoo.training import checkpoints, log
from zoo.training.augmentation import augment
from zoo.training.averaging import decay, follow
from zoo.training.optimisers import annealed, players

Progress = Callable[[float, float, Mapping[str, float]], None]     # (kimg done, kimg in all, means of the last tick)
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Schedule:
    """When things happen, in thousand images; none of it changes what is learnt."""

    kimg: float
    tick: float
    sample: float
    checkpoint: float
    keep: int

    def due(self, every: float, step: int, batch: int) -> bool:
        """Return whether the step that ends now is the first at or past a multiple of `every` kimg."""
        return int(step * batch / 1000 / every) > int((step - 1) * batch / 1000 / every)


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
    ):
        shares = accelerator.num_processes * accumulate
        if recipe.batch % shares:
            raise ConfigError(
                f"A batch of {recipe.batch} does not divide into {accelerator.num_processes} processes x "
                f"{accumulate} accumulation steps: make it a multiple of {shares}."
            )
        self.accelerator, self.recipe, self.schedule, self.out, self.seed = accelerator, recipe, schedule, out, seed
        self.images, self.accumulate, self.shares = images, accumulate, shares
        self.model = model.follow(recipe.averaged).to(accelerator.device)
        self.model.to(memory_format=torch.channels_last)
        self._share_weights()
        self.players = players(self.model, recipe, scale_gradients=precision == "fp16")
        self.dtype = PRECISIONS[precision]
        self.steps = -(-int(schedule.kimg * 1000) // recipe.batch)
        self.step = 0
        self.meters = log.Meters()
        self.seconds = 0.0      # spent in earlier parts of a resumed run
        self._changes = Noise(0)      # augmentation's chance; a new one for each micro-batch of each phase

    def run(self, progress: Progress | None = None) -> None:
        """Train from the current step to the end."""
        stream = self._stream()
        begun, last = time.monotonic() - self.seconds, (self.step, time.monotonic())
        self.model.train()
        if self.step == 0:
            self._sample(0.0)
        with self._augmented():
            while self.step < self.steps:
                share = self.step / self.steps
                self.model.advance(share)
                images, labels = next(stream)
                self._let_stand()
                for index, phase in enumerate(self.recipe.phases):
                    if self.step % phase.every == 0 and not self._waits(phase):
                        self._turn(index, phase, images, labels, share)
                self.step += 1
                follow(self.model, decay(self.recipe, self.step * self.recipe.batch))
                # A checkpoint brings a tick with it: buffers are averaged and numbers checked before they are saved.
                if self._due(self.schedule.tick) or self._due(self.schedule.checkpoint):
                    self.seconds = time.monotonic() - begun
                    speed = (self.step - last[0]) * self.recipe.batch / (time.monotonic() - last[1])
                    last = (self.step, time.monotonic())
                    self._tick(speed, progress)
                if self._due(self.schedule.sample):
                    self._sample(self._named(self.schedule.sample))
                if self._due(self.schedule.checkpoint):
                    self._save()

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

    # One phase.

    def _turn(self, index: int, phase: Phase, images: Tensor, labels: Tensor | None, share: float) -> None:
        player = self.players[phase.trains]
        self.model.requires_grad_(False)
        player.thaw()
        watched: list[Mapping[str, Tensor]] = []
        for micro in range(self.accumulate):
            self._changes = self._noise("augment", index, micro)
            batch = self._batch(index, micro, images, labels, share)
            with self._autocast():
                terms = phase.loss(self.model, batch)
            self._check(phase, terms)
            loss = terms.total() * (player.weight(phase) / self.accumulate)
            torch.autograd.backward(player.scaler.scale(loss))
            self.meters.add(phase.name, {**terms.minimise, **terms.watch})
            watched.append(terms.watch)
        norm = player.step(annealed(self.recipe, share) * phase.rate, self.accelerator, self.recipe.clip_norm)
        # A float16 scaler that was too high makes it infinite; then the step was left out and the scale was lowered.
        if not player.scaler.is_enabled() or bool(torch.isfinite(norm)):
            self.meters.add(phase.name, {"gradient_norm": norm})
        if phase.project is not None:
            for name in phase.trains:
                phase.project(self.model.get_submodule(name))
        if phase.after is not None:
            phase.after(self.model, self._means(watched))

    def _batch(self, index: int, micro: int, images: Tensor, labels: Tensor | None, share: float) -> Batch:
        rows = slice(micro, None, self.accumulate)
        noise = self._noise("phase", index, micro)
        chosen = normalise(images[rows].to(self.accelerator.device)).contiguous(memory_format=torch.channels_last)
        classes = self.model.config.num_classes
        onehot = None
        if classes:
            indices = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
            onehot = nn.functional.one_hot(indices[rows], classes).float().to(self.accelerator.device)
        return Batch(chosen, onehot, noise, share)

    def _noise(self, purpose: str, index: int, micro: int) -> Noise:
        seed = key(self.seed, self.step, purpose, index)
        place = self.accelerator.process_index + micro * self.accelerator.num_processes
        # Third-party networks may use torch's global generator (dropout): key it too, so that a resume repeats it.
        torch.manual_seed(key(seed, place))
        return Noise(seed, share=place, shares=self.shares, device=self.accelerator.device)

    def _means(self, watched: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        means = {name: torch.stack([values[name] for values in watched]).mean(0) for name in watched[0]}
        return {name: self.accelerator.reduce(value.detach(), "mean") for name, value in means.items()}

    def _check(self, phase: Phase, terms: Terms) -> None:
        # Reading a number waits for the device; on a GPU the tick finds the fault soon enough.
        if self.accelerator.device.type == "cuda":
            return
        for name, term in terms.minimise.items():
            if not bool(torch.isfinite(term)):
                raise self._fault(f"{phase.name}.{name}", float(term.detach()))

    def _fault(self, name: str, value: float) -> Diverged:
        return Diverged(
            f"Step {self.step}: {name} became {value}; the weights are not saved. Resume from the last checkpoint with "
            f"--resume and a lower lr (now {self.recipe.lr:g}), or set clip_norm."
        )

    # Augmentation wraps the critics from outside: reals, fakes and penalties all pass through it.

    @contextmanager
    def _augmented(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.recipe.augment:
                for name in self.recipe.critics:
                    hook = self.model.get_submodule(name).register_forward_pre_hook(self._augment_input)
                    stack.callback(hook.remove)
            yield

    def _augment_input(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not module.training:
            return None      # sampling and logits for the user see images as they are
        return (augment(inputs[0], self.recipe.augment, self._changes), *inputs[1:])

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, self.dtype)

    def _stream(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        return batches(
            self.images,
            batch=self.recipe.batch,
            seed=self.seed,
            start=self.step,
            share=self.accelerator.process_index,
            shares=self.accelerator.num_processes,
            mirror=self.recipe.mirror,
        )

    # Ticks, samples, checkpoints.

    def _due(self, every: float) -> bool:
        return self.step == self.steps or self.schedule.due(every, self.step, self.recipe.batch)

    def _tick(self, speed: float, progress: Progress | None) -> None:
        self._average_buffers()
        terms = self.meters.means(self.accelerator)
        for name, value in terms.items():
            if value != value or value in (float("inf"), float("-inf")):
                raise self._fault(name, value)
        kimg = self.step * self.recipe.batch / 1000
        if self.accelerator.is_main_process:
            line = {
                "step": self.step,
                "kimg": kimg,
                "lr": annealed(self.recipe, self.step / self.steps),
                "terms": terms,
                "seconds": round(self.seconds, 3),
                "images_per_second": round(speed, 3),
            }
            log.append(self.out / "log.jsonl", line)
            if progress is not None:
                progress(kimg, self.schedule.kimg, {**terms, "images_per_second": speed})

    @torch.no_grad()
    def _average_buffers(self) -> None:
        # Batch-norm statistics differ between processes, each having seen its own share of the images.
        if self.accelerator.num_processes == 1:
            return
        floating = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
        if not floating:
            return
        flat = self.accelerator.reduce(torch.cat([buffer.flatten().float() for buffer in floating]), "mean")
        for buffer, value in zip(floating, flat.split([buffer.numel() for buffer in floating])):
            buffer.copy_(value.view_as(buffer))

    def _named(self, every: float) -> float:
        # A step rarely ends on a multiple of `every`; what is due is named by the multiple that it passed.
        kimg = self.step * self.recipe.batch / 1000
        return self.schedule.kimg if self.step == self.steps else round(int(kimg / every + 1e-9) * every, 3)

    def _sample(self, kimg: float) -> None:
        if self.accelerator.is_main_process:
            log.grid(self.model, self.out / "samples", kimg)
            log.curves(self.out / "log.jsonl", self.out / "curves.png")

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            optimizer = {name: value for player in self.players.values() for name, value in player.state().items()}
            state = {
                "step": self.step,
                "kimg": self.step * self.recipe.batch / 1000,
                "seconds": self.seconds,
                "processes": self.accelerator.num_processes,
                "scalers": {player.name: player.scaler.state_dict() for player in self.players.values()},
            }
            directory = self.out / "checkpoints"
            checkpoints.write(directory, self.step, self.model.state_dict(), optimizer, state)
            checkpoints.prune(directory, self.schedule.keep)
        self.accelerator.wait_for_everyone()

    def restore(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Take up the training where a checkpoint left it.

        Raises:
            RunError: the checkpoint is of another model, or of a longer training.
        """
        if checkpoint.step > self.steps:
            raise RunError(
                f"This run has {checkpoint.state['kimg']:g} kimg behind it, more than the {self.schedule.kimg:g} asked "
                "for: give at least as many."
            )
        try:
            self.model.load_state_dict(checkpoint.model)
        except RuntimeError as error:
            raise RunError(f"The checkpoint of step {checkpoint.step} does not fit this model: {error}") from error
        for player in self.players.values():
            player.restore(checkpoint.optimizer)
            player.scaler.load_state_dict(checkpoint.state["scalers"][player.name])
        self.step, self.seconds = checkpoint.step, checkpoint.state["seconds"]
        log.cut(self.out / "log.jsonl", self.step)
