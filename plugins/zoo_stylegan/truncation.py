"""Styles of StyleGAN2 and StyleGAN3: mapped from latents, and pulled towards the average (Karras 2019, appendix B)."""

from __future__ import annotations

from math import sqrt
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError
from zoo.model import WIDEST, Model


class Styled(Protocol):
    """What styles need of a generator."""

    @property
    def mapping(self) -> nn.Module: ...            # z [N, latent], one-hot labels [N, classes] -> w [N, w]

    @property
    def w_average(self) -> Tensor: ...             # [w]: where truncation pulls to

    @property
    def styles(self) -> int: ...                   # how many a sample takes

    def broadcast(self, w: Tensor) -> Tensor: ...  # w [N, w] -> [N, styles, w]


def styled(generator: Styled, z: Tensor, labels: Tensor | None, psi: float, cutoff: int | None) -> Tensor:
    """Return styles [N, styles, w] from latents [N, latent] and one-hot labels [N, classes].

    Args:
        psi: styles become average + psi (w - average).
        cutoff: how many of them, from the first on; the others stay as they are, to the bit. None: all.

    Raises:
        ConfigError: a cutoff that is no number of layers.
    """
    if cutoff is not None and not isinstance(cutoff, int):
        raise ConfigError(f"cutoff={str(cutoff)[:60]!r}: give the number of layers that psi reaches, or None.")
    w = generator.broadcast(generator.mapping(z, labels))
    if psi == 1:
        return w
    reached = torch.arange(generator.styles, device=w.device) < (generator.styles if cutoff is None else cutoff)
    return torch.where(reached[:, None], generator.w_average + psi * (w - generator.w_average), w)


def styles_of(
    model: Model, z: Tensor, labels: Tensor | list[int] | None, *, psi: float, cutoff: int | None
) -> Tensor:
    """Return styles [N, styles, w] of a model's averaged generator for what a caller gave.

    Raises:
        ConfigError: z are no latents of this model, or psi is no number within bounds.
    """
    if not isinstance(psi, int | float) or not abs(psi) <= WIDEST:
        raise ConfigError(f"psi={str(psi)[:60]}: give a number, at most {WIDEST}; 1 is no truncation.")
    if not isinstance(z, Tensor) or z.ndim != 2 or z.shape[1] != model.latent_size or not z.is_floating_point():
        raise ConfigError(f"z must be a floating-point tensor of latents [N, {model.latent_size}].")
    rows = model.onehot(labels, len(z))
    rows = None if rows is None else rows.to(model.device)
    generator = cast("Styled", model.averaged("generator"))
    return styled(generator, z.to(model.device, torch.float32), rows, psi, cutoff).contiguous()


def check_styles(styles: Tensor, count: int, w: int) -> None:
    """Raise ConfigError unless these are styles [N, count, w]."""
    if not isinstance(styles, Tensor) or styles.ndim != 3 or styles.shape[1:] != (count, w):
        raise ConfigError(f"styles must be a tensor [N, {count}, {w}], such as `styles` returns.")


@torch.no_grad()
def keep_styles_of_latents(model: Model) -> None:
    """Keep the styles of z as they were when labels join it: a dense layer's scale falls with its inputs."""
    if not model.adapted.get("generator.mapping.layers.0.weight", "").startswith("grown"):
        return
    for generator in {model.get_submodule("generator"), model.averaged("generator")}:
        weight = generator.get_parameter("mapping.layers.0.weight")
        weight[:, model.latent_size :] = 0      # a new class begins as the parent's mixture of all
        weight.mul_(sqrt(weight.shape[1] / model.latent_size))
