"""One phase's turn: micro-batches, gradients averaged over processes, then the step, or none of a broken value."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from zoo.data import normalise
from zoo.model import Model
from zoo.noise import Noise, key
from zoo.recipe import Batch, Phase, Recipe, Terms
from zoo.training.augmentation import Augmenter
from zoo.training.compiling import Compiled
from zoo.training.contract import check_terms
from zoo.training.faults import Fault, Witness
from zoo.training.log import Meters
from zoo.training.memory import finer, give_back, ran_out
from zoo.training.optimisers import Player, players
from zoo.training.signals import Stop
from zoo.training.tensorfile import non_finite

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
FULL, BROKEN, TWICE, STOP = FLAGS = range(4)      # what processes tell each other in each turn:
# no memory left, a loss that is not finite, a compiled phase that differentiates twice, asked to stop.


@dataclass(frozen=True)
class Moment:
    """What all turns of one step share."""

    step: int
    images: Tensor             # uint8 [N, C, H, W]: this process's share
    labels: Tensor | None      # int64 [N]
    progress: float            # share of the training done, 0 to 1
    lr: float
    betas: tuple[float, float]
    seed: int                  # of the training's chance


class Turns:
    """Plays the phases of a recipe on a model; holds what they need and what they leave: optimisers and meters."""

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        accelerator: Accelerator,
        *,
        precision: str,
        accumulate: int,
        compile: bool,
    ):
        self.model, self.recipe, self.accelerator = model, recipe, accelerator
        self.players = players(model, recipe, scale_gradients=precision == "fp16")
        self.augmenter = Augmenter(recipe, model)
        self.meters = Meters()
        self.accumulate = accumulate      # micro-batches of each process; memory that runs out makes them more
        self.stop = False                 # whether any process was asked to stop, as all of them know it
        self._compiled = Compiled(model, compile)
        self._dtype = PRECISIONS[precision]

    def play(self, index: int, moment: Moment, stop: Stop) -> Fault | None:
        """Play one phase; return the fault that had its step left out, if there was one.

        Args:
            index: of the phase.
            stop: what this process has heard; what any has heard is `self.stop` afterwards, in all of them.

        Raises:
            RunError: memory runs out even with one image at a time.
        """
        phase = self.recipe.phases[index]
        player = self.players[phase.trains]
        buffers = [(buffer, buffer.clone()) for buffer in self._buffers()]
        self.model.requires_grad_(False)
        player.thaw()
        while True:
            played, flags = self._backward(index, moment, player)
            flags[STOP] = float(stop.number is not None)
            flags = player.average(self.accelerator, flags)
            self.stop = self.stop or bool(flags[STOP] > 0)
            if not bool(flags[FULL] + flags[TWICE] > 0):
                break
            player.skip()
            _put_back(buffers)
            if bool(flags[TWICE] > 0):
                self._compiled.give_up(phase)
            else:
                give_back()
                self.accumulate = finer(len(moment.images), self.accumulate)
        norm = player.norms()
        broken = bool(flags[BROKEN] > 0)
        if not broken and bool(torch.isfinite(norm)):
            self._step(phase, player, moment, played, norm)
            return None
        fault = None
        if broken:
            fault = self._broken_loss(index, moment, played)
        elif player.scale <= 1:      # a float16 scale above that may just have been too high: it is lowered
            fault = Fault(moment.step, phase.name, "gradient", str(float(norm)), _gradient(player))
        player.skip()
        if fault is not None:
            _put_back(buffers)
        return fault

    def _buffers(self) -> list[Tensor]:
        return [buffer for network in self.model.networks().values() for buffer in network.buffers()]

    def _backward(self, index: int, moment: Moment, player: Player) -> tuple[list[Terms], Tensor]:
        """Leave the gradients of all micro-batches; return their terms and the flags, but for `STOP`."""
        phase = self.recipe.phases[index]
        weight = player.weight(phase) / self.accumulate
        played: list[Terms] = []
        flags = torch.zeros(len(FLAGS), device=self.accelerator.device)
        try:
            with self._compiled.turn(phase):
                for micro in range(self.accumulate):
                    terms = self._forward(index, micro, moment)
                    loss = terms.total() * weight
                    last = micro == self.accumulate - 1
                    with player.collect(self.accelerator) if last else nullcontext():
                        torch.autograd.backward(player.scaler.scale(loss))
                    flags[BROKEN] += (~torch.isfinite(loss.detach())).float()
                    played.append(Terms(_detached(terms.minimise), _detached(terms.watch)))
        except (RuntimeError, MemoryError) as error:
            if self._compiled.unable(phase, error):
                flags[TWICE] = 1.0
            elif ran_out(error):
                flags[FULL] = 1.0
            else:
                raise
        return played, flags

    def _forward(self, index: int, micro: int, moment: Moment) -> Terms:
        phase, batch = self.recipe.phases[index], self._batch(index, micro, moment)
        with self._autocast():
            return check_terms(phase, phase.loss(self.model, batch))

    def rehearse(self, moment: Moment, accumulate: int) -> None:
        """Play the first of so many micro-batches of every phase, and leave everything as it was."""
        before, self.accumulate = self.accumulate, accumulate
        buffers = [(buffer, buffer.clone()) for buffer in self._buffers()]
        try:
            for index, phase in enumerate(self.recipe.phases):
                player = self.players[phase.trains]
                self.model.requires_grad_(False)
                player.thaw()
                torch.autograd.backward(player.scaler.scale(self._forward(index, 0, moment).total()))
                player.skip()
        finally:
            for player in self.players.values():
                player.skip()
            self.accumulate = before
            _put_back(buffers)

    def _step(self, phase: Phase, player: Player, moment: Moment, played: list[Terms], norm: Tensor) -> None:
        player.apply(moment.lr * phase.rate, moment.betas, self.recipe.clip_norm, norm)
        for terms in played:
            self.meters.add(phase.name, {**terms.minimise, **terms.watch})
        self.meters.add(phase.name, {"gradient_norm": norm})
        if phase.project is not None:
            for name in phase.trains:
                phase.project(self.model.get_submodule(name))
        adapts = bool(self.augmenter.watch())
        means = self._means(played) if adapts or phase.after is not None else {}
        if phase.after is not None:
            phase.after(self.model, means)
        if adapts:
            self.augmenter.hear({name: float(value) for name, value in means.items() if value.ndim == 0})

    def _means(self, played: list[Terms]) -> dict[str, Tensor]:
        means = {name: torch.stack([terms.watch[name] for terms in played]).mean(0) for name in played[0].watch}
        return {name: self.accelerator.reduce(value, "mean") for name, value in means.items()}

    # Faults.

    def _broken_loss(self, index: int, moment: Moment, played: list[Terms]) -> Fault:
        # Averaged gradients are broken everywhere, but only a process whose own loss is can say why.
        phase = self.recipe.phases[index]
        mine = next(
            ((name, float(value), micro) for micro, terms in enumerate(played)
             for name, value in terms.minimise.items() if not bool(torch.isfinite(value).all())), None,
        )  # fmt: skip
        said = None if mine is None else (mine[0], str(mine[1]), self._source(index, mine[2], moment))
        known = [each for each in gather_object([said]) if each is not None]
        term, value, tensor = known[0] if known else ("loss", "inf", "")      # finite terms, whose sum is not
        return Fault(moment.step, phase.name, term, value, tensor)

    def _source(self, index: int, micro: int, moment: Moment) -> str:
        """Return what is not finite first when a micro-batch is played once more: weights, or a module's output."""
        batch = self._batch(index, micro, moment)
        found = non_finite({"images": batch.images, **dict(self.model.named_parameters())})
        if found:
            return found
        with Witness(self.model) as witness, self._autocast(), suppress(Exception):      # no news must end the training
            self.recipe.phases[index].loss(self.model, batch)
        return witness.seen

    # What a loss sees.

    def _batch(self, index: int, micro: int, moment: Moment) -> Batch:
        self.augmenter.draw(self._noise("augment", index, micro, moment))
        noise = self._noise("phase", index, micro, moment)
        rows = slice(micro, None, self.accumulate)
        chosen = normalise(moment.images[rows].to(self.accelerator.device, non_blocking=True))
        classes = self.model.config.num_classes
        onehot = None
        if classes:
            zeros = torch.zeros(len(moment.images), dtype=torch.int64)
            indices = (zeros if moment.labels is None else moment.labels)[rows].to(self.accelerator.device)
            onehot = nn.functional.one_hot(indices, classes).float()
        return Batch(chosen.contiguous(memory_format=torch.channels_last), onehot, noise, moment.progress)

    def _noise(self, purpose: str, index: int, micro: int, moment: Moment) -> Noise:
        seed = key(moment.seed, moment.step, purpose, index)
        place = self.accelerator.process_index + micro * self.accelerator.num_processes
        # Third-party networks may use torch's global generator (dropout): key it too, so that a resume repeats it.
        _seed(key(seed, place), self.accelerator.device)
        shares = self.accelerator.num_processes * self.accumulate
        return Noise(seed, share=place, shares=shares, device=self.accelerator.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self.accelerator.device.type, self._dtype)


def _seed(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of a device.

    `torch.manual_seed` also tells every kind of accelerator that might be there, each with a traceback of this call: a
    hundred times as long, and a few percent of a step of a small model.
    """
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _gradient(player: Player) -> str:
    name = player.first_bad()
    return f"the gradient of {name}" if name else ""


def _detached(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in values.items()}


@torch.no_grad()
def _put_back(buffers: list[tuple[Tensor, Tensor]]) -> None:
    # Running statistics that a broken forward has touched; each tensor is the network's own.
    for buffer, kept in buffers:
        buffer.copy_(kept)
