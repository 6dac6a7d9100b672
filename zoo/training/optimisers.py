"""One Adam per player, its gradients averaged over processes by the trainer, its state kept under parameter names."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from fnmatch import fnmatchcase

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from zoo.errors import ConfigError, WeightsError
from zoo.recipe import Phase, Recipe
from zoo.schedules import scheduled, share
from zoo.training.gradients import BUCKET, Gradients

OVERLAPPING = ("cuda",)      # devices that send beside computing; a CPU's cores would have to do both


def annealed(recipe: Recipe, progress: float) -> float:
    """Return the learning rate after a share `progress` (0 to 1) of the training, without its warm-up."""
    return scheduled(recipe.lr, recipe.lr * recipe.final_rate, progress, recipe.anneal)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of one of so many steps; the first ones rise in a straight line to the annealed rate."""
    shown = (step + 1) * recipe.batch      # once it is over, so that no step stands still
    return annealed(recipe, step / steps) * share(shown, recipe.lr_warmup_kimg * 1000)


def momenta(recipe: Recipe, progress: float) -> tuple[float, float]:
    """Return Adam's betas after a share of the training; they follow the same line as the learning rate."""
    first, second = recipe.betas
    last = recipe.betas if recipe.final_betas is None else recipe.final_betas
    return (
        scheduled(float(first), float(last[0]), progress, recipe.anneal),
        scheduled(float(second), float(last[1]), progress, recipe.anneal),
    )


class Player:
    """The networks that one turn moves, with their optimiser.

    Phases that move the same networks share it. Where one of them is lazy (every k-th step), learning rate and betas
    are rescaled by c = k / (k + 1), so that the extra steps leave the average step as it was (Karras 2020, appendix B).
    """

    def __init__(self, model: nn.Module, recipe: Recipe, trains: tuple[str, ...], *, scale_gradients: bool = False):
        phases = recipe.player(trains)
        frozen = tuple(pattern for phase in phases for pattern in phase.frozen)
        self.name = "+".join(trains)
        self.parameters = {
            f"{network}.{name}": parameter
            for network in trains
            for name, parameter in model.get_submodule(network).named_parameters()
            if not any(fnmatchcase(f"{network}.{name}", pattern) for pattern in frozen)
        }
        if not self.parameters:
            raise ConfigError(f"Phase {phases[0].name!r} moves no parameter: all of {self.name} is frozen.")
        self._least = min(phase.every for phase in phases)
        lazy = max(phase.every for phase in phases) / self._least
        self._ratio = lazy / (lazy + 1) if lazy > 1 else 1.0
        values = list(self.parameters.values())
        self.optimizer = torch.optim.Adam(      # each step brings its own learning rate and betas
            values, lr=recipe.lr, eps=recipe.eps, fused=values[0].device.type in ("cpu", "cuda")
        )
        self.scaler = torch.amp.GradScaler(values[0].device.type, enabled=scale_gradients)
        self.scaler.scale(torch.zeros((), device=values[0].device))      # makes its state: a first turn may be skipped
        self._norm: Tensor | None = None
        self._shared: Gradients | None = None      # made by the first turn among several processes

    def weight(self, phase: Phase) -> float:
        """Return what a phase's loss is multiplied with: k for one that comes every k-th time."""
        return phase.every / self._least

    def thaw(self) -> None:
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)

    # A turn ends with these, in this order: collect around the last backward, average, norms, then apply or skip.

    def collect(self, accelerator: Accelerator) -> AbstractContextManager[None]:
        """Enter around the last backward of a turn: gradients that are ready travel while it goes on."""
        if accelerator.num_processes == 1 or accelerator.device.type not in OVERLAPPING:
            return nullcontext()
        return self._gradients(accelerator).collected()

    def average(self, accelerator: Accelerator, flags: Tensor) -> Tensor:
        """Average the gradients over processes and return the sums of `flags`, float32 [k].

        Every process must come here once a turn, also one whose losses or backward failed: it says so in its flags,
        and what it lacks counts as zero. A parameter that no process reached keeps no gradient, as in a single process.
        What follows from gradients, norm and sums is then the same everywhere.
        """
        return flags if accelerator.num_processes == 1 else self._gradients(accelerator).average(flags)

    def norms(self) -> Tensor:
        """Return the norm of all gradients together, without the loss scale: a scalar on the device."""
        self.scaler.unscale_(self.optimizer)
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        self._norm = torch.nn.utils.get_total_norm(gradients)
        return self._norm

    def first_bad(self) -> str | None:
        """Return the name of the first parameter with a gradient that is not finite."""
        named = [(name, value.grad) for name, value in self.parameters.items() if value.grad is not None]
        finite = torch.stack([torch.isfinite(gradient).all() for _, gradient in named]).tolist() if named else []
        return next((name for (name, _), fine in zip(named, finite) if not fine), None)

    def apply(self, lr: float, betas: tuple[float, float], clip_norm: float | None, norm: Tensor) -> None:
        """Clip the gradients, whose norm this is, take one step and forget them."""
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), clip_norm, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * self._ratio
            group["betas"] = (betas[0] ** self._ratio, betas[1] ** self._ratio)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._forget()

    def skip(self) -> None:
        """Leave this step out and forget its gradients; a loss scale that made them overflow is lowered."""
        overflowed = self._norm is not None and not bool(torch.isfinite(self._norm))
        # Without an overflow the scale is set to itself: that ends the step and does not count as a good one.
        self.scaler.update(None if overflowed else self.scale)
        self._forget()

    @property
    def scale(self) -> float:
        """What losses are multiplied with in float16, else 1."""
        return self.scaler.get_scale()

    def _forget(self) -> None:
        self._norm = None
        self.optimizer.zero_grad(set_to_none=True)

    def _gradients(self, accelerator: Accelerator) -> Gradients:
        if self._shared is None:
            bucket = BUCKET if accelerator.device.type in OVERLAPPING else None
            self._shared = Gradients(list(self.parameters.values()), bucket=bucket)
        return self._shared

    def state(self) -> dict[str, Tensor]:
        """Return the optimiser's moments and counts, named by parameter."""
        return {
            f"{self.name}/{kind}/{name}": value
            for name, parameter in self.parameters.items()
            for kind, value in self.optimizer.state.get(parameter, {}).items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned."""
        for name, parameter in self.parameters.items():
            kept = {
                kind: tensors[f"{self.name}/{kind}/{name}"]
                for kind in ("step", "exp_avg", "exp_avg_sq")
                if f"{self.name}/{kind}/{name}" in tensors
            }
            if not kept:      # a parameter that no loss had reached yet has no state, whatever it has by now
                self.optimizer.state.pop(parameter, None)
                continue
            if len(kept) < 3 or not _fits(kept, parameter):
                raise WeightsError(f"The checkpoint's optimiser state of {name} is incomplete or of another shape.")
            self.optimizer.state[parameter] = {
                "step": kept["step"].clone(),
                "exp_avg": _like(parameter, kept["exp_avg"]),
                "exp_avg_sq": _like(parameter, kept["exp_avg_sq"]),
            }


def _fits(kept: Mapping[str, Tensor], parameter: Tensor) -> bool:
    moments, step = (kept["exp_avg"], kept["exp_avg_sq"]), kept["step"]
    alike = all(each.shape == parameter.shape and each.is_floating_point() for each in moments)
    return alike and step.ndim == 0 and step.is_floating_point() and bool(step >= 0)


def _like(parameter: Tensor, values: Tensor) -> Tensor:
    # Fused Adam walks parameter, gradient and moments in memory order without looking at strides, so all must lie
    # alike; parameters are channels_last.
    return torch.empty_like(parameter).copy_(values)


def players(model: nn.Module, recipe: Recipe, *, scale_gradients: bool) -> dict[tuple[str, ...], Player]:
    """Return one player for each distinct set of networks that the recipe's phases move."""
    networks = {name for name, _ in model.named_children()}
    for phase in recipe.phases:
        unknown = sorted(set(phase.trains) - networks)
        if unknown or not phase.trains:
            possible = ", ".join(sorted(networks - {"averages"}))
            raise ConfigError(f"Phase {phase.name!r} trains {', '.join(unknown) or 'nothing'}; networks: {possible}.")
    turns = dict.fromkeys(phase.trains for phase in recipe.phases)
    return {trains: Player(model, recipe, trains, scale_gradients=scale_gradients) for trains in turns}
