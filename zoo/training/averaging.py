"""Averages: over time, of networks, measured in images; over processes, of running statistics."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from zoo.model import Model
from zoo.recipe import Recipe


def decay(recipe: Recipe, images_seen: int) -> float:
    """Return the factor that the average keeps of itself over one batch.

    The half-life is `ema_kimg` thousand images, and early on at most the share `ema_rampup` of the images seen, so that
    the average leaves the random start quickly (Karras 2020, training code of StyleGAN2-ADA).
    """
    half_life = recipe.ema_kimg * 1000
    if recipe.ema_rampup is not None:
        half_life = min(half_life, images_seen * recipe.ema_rampup)
    return float(0.5 ** (recipe.batch / max(half_life, 1e-8)))


@torch.no_grad()
def follow(model: Model, keep: float) -> None:
    """Move every average towards its network: parameters and floating buffers; counts are copied."""
    for name, average in model.averages.items():
        network = model.get_submodule(name)
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - keep)
        for kept, value in zip(average.buffers(), network.buffers(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(value, 1 - keep)
            else:
                kept.copy_(value)


@torch.no_grad()
def agree(model: Model, accelerator: Accelerator) -> None:
    """Average the floating buffers over processes: each has seen batch-norm statistics of its own share of the images.

    In double precision, so that what is the same everywhere stays as it is, bit for bit.
    """
    floating = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if accelerator.num_processes == 1 or not floating:
        return
    flat = accelerator.reduce(torch.cat([buffer.flatten().double() for buffer in floating]), "mean")
    for buffer, value in zip(floating, flat.split([buffer.numel() for buffer in floating])):
        buffer.copy_(value.view_as(buffer))
