"""Spectral norm for any critic, from outside (Miyato et al., 2018, arXiv:1802.05957, eq. 8 and 9).

A turn is played with each weight divided by its largest singular value, gradients included (`Spectral`); after the step
the weights themselves are divided (`normalise`). So names in the state dict stay what they were, and weights that are
saved are those that were judged with: the critic gives the same logits wherever it is loaded. Dividing after the step
changes no logit, as only the direction of a weight counts. Where the paper keeps one vector for each weight and
iterates once a step, a few iterations from the weight's largest row are made here: nothing has to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.parts import with_projection, with_wrapped
from zoo.recipe import Batch, Loss, Recipe, Terms
from zoo.substitution import played_with

if TYPE_CHECKING:
    from zoo.model import Model

ITERATIONS = 10
FLOOR = 1e-12      # below it a weight counts as zero, and is left as it is


def spectral_norm(weight: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Return the largest singular value of a weight [out, ...], read as a matrix [out, rest]: a scalar.

    By power iterations, so it is a little too small where singular values lie close. Differentiable: the vectors count
    as constants, as in the paper's eq. 10 to 12.
    """
    matrix = weight.flatten(1)
    with torch.autocast(weight.device.type, enabled=False):      # a bound needs all digits
        with torch.no_grad():
            v = matrix[torch.linalg.vector_norm(matrix, dim=1).argmax()]
            for _ in range(iterations):
                u = nn.functional.normalize(matrix @ v, dim=0, eps=FLOOR)
                v = nn.functional.normalize(matrix.T @ u, dim=0, eps=FLOOR)
        return u @ (matrix @ v)


def normalised(weight: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Return a weight divided by its largest singular value."""
    norm = spectral_norm(weight, iterations)
    return weight / torch.where(norm > FLOOR, norm, 1)


@torch.no_grad()
def normalise(network: nn.Module) -> None:
    """Divide every weight matrix of a network by its largest singular value, in place; for `Phase.project`."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.copy_(normalised(parameter))


@dataclass(frozen=True)
class Spectral:
    """A loss that a network with spectral norm has a part in."""

    loss: Loss
    network: str = "discriminator"

    def __call__(self, model: Model, batch: Batch) -> Terms:
        values = {
            f"{self.network}.{name}": normalised(parameter)
            for name, parameter in model.get_submodule(self.network).named_parameters()
            if parameter.ndim > 1
        }
        return played_with(values, self.loss, model, batch)


def with_spectral_norm(recipe: Recipe, network: str = "discriminator") -> Recipe:
    """Return the recipe with spectral norm of a network, in every turn that trains it.

    Other turns see its weights as the last step left them, which is the same. Meant for networks that use their
    weights as they are; equalised learning rates (StyleGAN) and weight demodulation multiply them again.

    Raises:
        ConfigError: a turn that trains it projects its weights already, such as by clipping.
    """
    recipe = with_projection(recipe, network, normalise, "spectral norm")
    return with_wrapped(recipe, lambda loss: Spectral(loss, network), trains=(network,))
