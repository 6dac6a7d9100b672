"""Standard errors of values over the choice of images: the delete-a-group jackknife.

Real and fake images are each cut at random into as many groups; leaving out one group of both at a time gives values
whose scatter tells that of the value itself (Shao and Wu, 1989; Kott, 2001). No image occurs twice, as in a bootstrap,
where each copy would be the nearest neighbour of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.metrics.metric import FEATURES, Metric
from zoo.noise import key
from zoo.uncertainty import STD_ERROR

PER_IMAGE = {"real": "real", "real_labels": "real", "fake": "fake", "fake_labels": "fake"}      # input -> side


def with_std_errors(metric: Metric, given: Mapping[str, Any], *, groups: int, seed: int) -> dict[str, float]:
    """Return the metric's values and, where it is smooth and tells none itself, NAME_std_error of each.

    Args:
        given: the metric's inputs by name.
        groups: how many are left out in turn; fewer where there are fewer images. 0: no standard errors.
        seed: of the choice of groups.
    """
    values = metric(**given)
    sides = {side: len(given[side]) for side in FEATURES if side in metric.inputs}
    groups = min(groups, *sides.values()) if sides else 0
    if groups < 2 or not metric.smooth:
        return values
    homes = {side: _groups(count, groups, key("jackknife", seed, side)) for side, count in sides.items()}
    if any(min(_left(home, groups)) < metric.least(given[side].shape[1]) for side, home in homes.items()):
        return values
    without = [metric(**_reduced(given, homes, group)) for group in range(groups)]
    for name in list(values):
        told = torch.tensor([each[name] for each in without]).double()
        variance = (groups - 1) / groups * (told - told.mean()).square().sum()
        values.setdefault(name + STD_ERROR, float(variance.sqrt()))
    return values


def _groups(count: int, groups: int, seed: int) -> Tensor:
    """Return the group [count] of each image; their sizes differ by one at most."""
    chance = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=chance) % groups


def _left(home: Tensor, groups: int) -> list[int]:
    return (len(home) - torch.bincount(home, minlength=groups)).tolist()


def _reduced(given: Mapping[str, Any], homes: Mapping[str, Tensor], group: int) -> dict[str, Any]:
    def kept(name: str, value: Any) -> Any:
        home = homes.get(PER_IMAGE.get(name, ""))
        return value if home is None else value[(home != group).to(value.device)]

    return {name: kept(name, value) for name, value in given.items()}
