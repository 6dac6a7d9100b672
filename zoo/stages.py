"""Networks that are trained in stages, from small images to large ones (Karras et al., 2018, arXiv:1710.10196).

A network that can has an attribute `resolutions`, those that it can work at, smallest first, and an attribute `stage`
that its `forward` honours: blocks beyond the stage's resolution only pass on what they get, resized as ever,
and the block of that resolution adds `alpha` of its own. So images keep their full size at every stage, only their
detail grows; no stage has weights of its own, and without a stage the network is the plain one. A generator has
`enlarge` too, which doubles images as it does itself: reals are brought to a stage with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from zoo.errors import ConfigError
from zoo.schedules import share

if TYPE_CHECKING:
    from zoo.model import Model


class Stage(NamedTuple):
    """The resolution whose block is the last that acts, and how much it adds: a scalar above 0, at most 1, on the CPU.

    It is a tensor, as a compiled network would be compiled anew for each number.
    """

    resolution: int
    alpha: Tensor


def amount(stage: Stage | None, resolution: int) -> Tensor | None:
    """Return how much of its own the block of a resolution adds to a stage that it has a part in; None: all of it."""
    return stage.alpha if stage is not None and resolution == stage.resolution else None


def beyond(stage: Stage | None, resolution: int) -> bool:
    """Return whether the block of a resolution has no part in a stage."""
    return stage is not None and resolution > stage.resolution


@dataclass(frozen=True)
class Growth:
    """When a network enters which stage: all stages but the last have the same length.

    Args:
        first: resolution that training begins with.
        until: share of the training after which the network is whole, above 0 and below 1.
        fade: share of a stage in which its new block fades in, above 0 and at most 1.
    """

    first: int
    until: float
    fade: float

    def at(self, resolutions: Sequence[int], progress: float) -> Stage | None:
        """Return the stage of networks of these resolutions after a share of the training; None: they are whole."""
        stages = [resolution for resolution in resolutions if resolution >= self.first]
        length = self.until / (len(stages) - 1 + self.fade)      # the last stage is over once it has faded in
        entered = min(int(progress / length), len(stages) - 1)
        alpha = share(progress / length - entered, self.fade) if entered else 1.0
        if entered == len(stages) - 1 and alpha == 1:
            return None
        if not alpha:      # which is the stage before
            entered, alpha = entered - 1, 1.0
        return Stage(stages[entered], torch.tensor(alpha))


def resolutions_of(network: nn.Module) -> tuple[int, ...]:
    """Return the resolutions that a network can work at, smallest first; none where it cannot be trained in stages."""
    return tuple(getattr(network, "resolutions", ()))


def enter(model: Model, stage: Stage | None) -> None:
    """Bring every network of a model that can be, and its average, to a stage; None: make them whole."""
    for network in (*model.networks().values(), *model.averages.values()):
        if resolutions_of(network):
            network.stage = stage      # type: ignore[assignment]      # no module, no parameter


def brought(images: Tensor, stage: Stage, enlarge: Callable[[Tensor], Tensor]) -> Tensor:
    """Return images [N, C, H, H] with the detail of a stage alone, at their full size.

    They are averaged down, while a stage fades in to two resolutions, of which `alpha` says the mixture, and enlarged
    as a generator enlarges its own images.
    """
    size = images.shape[-1]
    detailed = avg_pool2d(images, size // stage.resolution)
    if float(stage.alpha) < 1:
        detailed = enlarge(avg_pool2d(detailed, 2)).lerp(detailed, stage.alpha.to(detailed))
    while detailed.shape[-1] < size:
        detailed = enlarge(detailed)
    return detailed


def check_growth(growth: Growth, resolutions: Sequence[int]) -> None:
    """Refuse a growth that networks of these resolutions cannot take.

    Raises:
        ConfigError: with what is possible.
    """
    if growth.first not in resolutions[:-1]:
        possible = ", ".join(map(str, resolutions[:-1]))
        raise ConfigError(f"first={growth.first}: training in stages can begin with {possible} pixels here.")
    if not 0 < growth.until < 1 or not 0 < growth.fade <= 1:
        raise ConfigError(
            f"until={growth.until:g}, fade={growth.fade:g}: give a share of the training below 1, and one of a stage."
        )
