"""Classes of real and fake images, checked: what metrics that compare class by class ask of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import EvaluationError


def checked(features: Tensor, labels: Tensor, side: str) -> Tensor:
    """Return labels int64 [N] of features [N, d], on the features' device.

    Raises:
        EvaluationError: they are not one whole number from 0 on for each image.
    """
    whole = labels.ndim == 1 and len(labels) == len(features) and not labels.is_floating_point()
    if not whole or bool((labels < 0).any()):
        given = f"labels of shape {list(labels.shape)} and type {labels.dtype}"
        raise EvaluationError(f"{len(features)} {side} images have {given}: give each the number of its class, from 0.")
    return labels.long().to(features.device)


def counts(real_labels: Tensor, fake_labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many real and how many fake images [K] each class has."""
    classes = int(torch.cat([real_labels.reshape(-1), fake_labels.reshape(-1)]).max()) + 1
    return torch.bincount(real_labels, minlength=classes), torch.bincount(fake_labels, minlength=classes)


def called(number: int, names: Sequence[str]) -> str:
    """Return how a message names a class."""
    return f"Class {names[number]!r}" if number < len(names) else f"Class {number}"
