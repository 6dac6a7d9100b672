"""Fit trained weights to another resolution, channel count or number of classes; report what became of each tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def adapted(fresh: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a full set of tensors and what became of each: "copied", "grown", "trimmed", "re-initialised".

    A tensor of the same shape is copied. One that differs along one axis (classes, colours) keeps what both have, and
    further entries start as the mean of the trained ones. What the trained model lacks, or what differs in more ways,
    stays fresh. Architectures name blocks so that equal names mean equal work, and mend the rest in `Model.refit`.

    Args:
        fresh: the state of the new configuration with random weights.
        trained: the stored tensors.
    """
    tensors: dict[str, Tensor] = {}
    report: dict[str, str] = {}
    for name, wanted in fresh.items():
        given = trained.get(name)
        tensors[name], report[name] = _fit(wanted, given)
    for name in sorted(set(trained) - set(fresh)):
        report[name] = "dropped"
    return tensors, report


def _fit(wanted: Tensor, given: Tensor | None) -> tuple[Tensor, str]:
    if given is None or given.ndim != wanted.ndim or given.dtype != wanted.dtype or not given.numel():
        return wanted.clone(), "re-initialised"
    if given.shape == wanted.shape:
        return given, "copied"
    change = f"{list(given.shape)} -> {list(wanted.shape)}"
    differing = [axis for axis in range(wanted.ndim) if given.shape[axis] != wanted.shape[axis]]
    if len(differing) > 1:
        return wanted.clone(), f"re-initialised {change}"
    axis = differing[0]
    verb = "grown" if wanted.shape[axis] > given.shape[axis] else "trimmed"
    return _along(given, axis, wanted.shape[axis]), f"{verb} {change}"


def _along(given: Tensor, axis: int, need: int) -> Tensor:
    have = given.shape[axis]
    if need <= have:
        return given.narrow(axis, 0, need).clone()
    # New rows begin as the average of the trained ones: a new class looks like a typical image of the parent, a new
    # channel like grey of its colours, instead of like noise.
    mean = given.float().mean(axis, keepdim=True).to(given.dtype)
    rest = [1] * given.ndim
    rest[axis] = need - have
    return torch.cat([given, mean.repeat(rest)], dim=axis)
