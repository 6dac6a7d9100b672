"""Instance noise (Sonderby et al., 2017, arXiv:1610.04490): what a critic judges has noise on it, less and less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from zoo.recipe import Batch, Loss, Terms
from zoo.schedules import scheduled, share

if TYPE_CHECKING:
    from zoo.model import Model


def noise_level(first: float, until: float, progress: float) -> float:
    """Return the noise's standard deviation after a share of the training: from `first` linearly to 0 at `until`."""
    return scheduled(first, 0.0, share(progress, until), "linear")


@dataclass(frozen=True)
class Noisy:
    """A loss in which a critic sees every image with noise: reals, fakes, and where penalties are taken.

    Both players' turns must be wrapped (`zoo.parts.with_wrapped`). The noise comes after a recipe's augmentation.

    Args:
        first: standard deviation as training begins, in units of images in [-1, 1]; 0.1 in the paper's experiments.
        until: share of the training after which there is none.
    """

    loss: Loss
    first: float = 0.1
    until: float = 1.0
    network: str = "discriminator"

    def __call__(self, model: Model, batch: Batch) -> Terms:
        level = noise_level(self.first, self.until, batch.progress)
        if not level:
            return self.loss(model, batch)

        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            noise = batch.noise.normal(*inputs[0].shape).to(inputs[0].dtype)
            return (inputs[0] + level * noise, *inputs[1:])

        hook = model.get_submodule(self.network).register_forward_pre_hook(before)
        try:
            return self.loss(model, batch)
        finally:
            hook.remove()
