"""Training is data: a recipe is an ordered tuple of phases, a phase is a pure loss and the networks it moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.noise import Noise
from zoo.schedules import Kind

if TYPE_CHECKING:
    from zoo.model import Model


@dataclass(frozen=True)
class Batch:
    """What a loss sees: this process's share of one step's images, and the only source of chance it may use."""

    images: Tensor            # [N, C, H, W] float32 in [-1, 1]
    labels: Tensor | None     # [N, classes] float32, one-hot or soft; None for a model without classes
    noise: Noise              # keyed by (seed, step, phase): rows of this share
    progress: float = 0.0     # share of the training done, 0 to 1

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Terms:
    """What a loss returns: named scalars whose sum is minimised, and named values that are only watched.

    Watched scalars go to the log; watched tensors of any shape reach `Phase.after`, averaged over the whole batch. The
    names must be the same in every micro-batch and process.
    """

    minimise: Mapping[str, Tensor]
    watch: Mapping[str, Tensor] = field(default_factory=dict)

    def total(self) -> Tensor:
        return torch.stack([term.float() for term in self.minimise.values()]).sum()


Loss = Callable[["Model", Batch], Terms]
After = Callable[["Model", Mapping[str, Tensor]], None]


@dataclass(frozen=True)
class Phase:
    """One player's turn. The trainer freezes every network that is not in `trains` while it lasts."""

    name: str
    trains: tuple[str, ...]                              # networks this turn moves
    loss: Loss                                           # pure: (model, batch) -> Terms
    every: int = 1                                       # lazy: each k-th step, weight x k (Karras 2020, App. B)
    rate: float = 1.0                                    # two time scales: multiplier of the recipe's learning rate
    project: Callable[[nn.Module], None] | None = None   # after the step: weight clipping, orthogonalisation
    after: After | None = None                           # after the step: running averages of watched values
    frozen: tuple[str, ...] = ()                         # shell patterns of parameter names that stand still (FreezeD)
    settings: Mapping[str, float | str] = field(default_factory=dict)      # what the loss was made with, for run.json


@dataclass(frozen=True)
class Recipe:
    """How a model is trained. Change one with `dataclasses.replace`, or `--set name=value` on the command line."""

    phases: tuple[Phase, ...]
    averaged: tuple[str, ...] = ()                       # networks that are followed by an exponential moving average
    critics: tuple[str, ...] = ()                        # networks that judge images: augmentation wraps these
    loss: str | None = None                              # adversarial loss of all turns; None: the architecture's own
    batch: int = 32                                      # images a step, over all processes
    lr: float = 2e-4                                     # Adam's learning rate
    betas: tuple[float, float] = (0.0, 0.99)             # Adam's momentum terms
    final_betas: tuple[float, float] | None = None       # momentum terms that `anneal` ends at; None: they stay
    eps: float = 1e-8                                    # Adam's numerical floor
    anneal: Kind = "constant"                            # `constant`, `linear` or `cosine`: how rate and betas end
    final_rate: float = 0.0                              # share of `lr` that `anneal` ends at
    lr_warmup_kimg: float = 0.0                          # thousand images in which `lr` rises from 0
    ema_kimg: float = 10.0                               # half-life of the average, in thousand images
    ema_rampup: float | None = 0.05                      # half-life at most this share of the images seen; None: off
    clip_norm: float | None = None                       # largest global gradient norm of a phase; None: no clipping
    augment: tuple[str, ...] = ()                        # "ada", or DiffAugment's "color", "translation", "cutout"
    augment_p: float = 1.0                               # share of images that DiffAugment changes
    augment_ramp_kimg: float = 0.0                       # thousand images in which that share rises from 0
    ada_target: float | None = 0.6                       # mean sign of logits on reals that steers p; None: p is fixed
    ada_kimg: float = 500.0                              # thousand images in which a steered p can go from 0 to 1
    ada_p: float = 0.0                                   # chance of each of ADA's changes: as training begins, or fixed
    ada_ramp_kimg: float = 0.0                           # thousand images in which a fixed p rises from 0
    mirror: bool = False                                 # flip half of the images left to right
    fresh: tuple[str, ...] = ()                          # networks that start untrained beside trained ones
    warmup_kimg: float = 0.0                             # thousand images in which only the fresh ones move

    added: tuple[str, ...] = ()                          # what was added from outside, as `--add` writes it

    @classmethod
    def settings(cls) -> list[str]:
        """Return the fields that a user may set; the others are the architecture's."""
        architectures = ("phases", "averaged", "critics", "fresh", "added")
        return [each.name for each in fields(cls) if each.name not in architectures]

    def player(self, trains: tuple[str, ...]) -> tuple[Phase, ...]:
        """Return the phases that move exactly these networks; they share one optimiser."""
        return tuple(phase for phase in self.phases if phase.trains == trains)
