"""PacGAN: a critic that judges several images at once, as their channels (Lin et al., 2018, arXiv:1712.04086)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, Unsupported
from zoo.model import Model

NETWORK = "discriminator"


def packed(images: Tensor, m: int) -> Tensor:
    """Return [N / m, m C, H, W] of images [N, C, H, W]: row i holds images i, i + N/m, i + 2 N/m, ...

    Raises:
        ConfigError: m does not divide N.
    """
    n, channels, height, width = images.shape
    if n % m:
        raise ConfigError(f"{n} images do not make packs of {m}: give a batch (a process's part of it) {m} divides.")
    return images.reshape(m, n // m, channels, height, width).transpose(0, 1).reshape(n // m, -1, height, width)


class Packed(nn.Module):
    """Images [N, C, H, W] and labels [N, classes] -> logits [N / m, K], one for each pack.

    Args:
        critic: takes m C channels. A pack's labels are the mean of its images' rows.
        m: images in a pack; 2 in most of the paper's experiments.
    """

    def __init__(self, critic: nn.Module, m: int):
        super().__init__()
        self.critic, self.m = critic, m

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        packs = packed(images, self.m)
        rows = None if labels is None else labels.reshape(self.m, len(packs), -1).mean(0)
        logits: Tensor = self.critic(packs, rows)
        return logits


def pack(model: Model, m: int = 2) -> Model:
    """Give a model a fresh critic of its own kind for packs of m images, in place of the one it has, and return it.

    Raises:
        Unsupported: the model has no discriminator, or one that stands in for it.
        ConfigError: m is below 2.
    """
    name = model.architecture or type(model).__name__
    if m < 2:
        raise ConfigError(f"m={m}: a pack holds at least 2 images.")
    if (NETWORK not in model.networks() and NETWORK not in model.absent) or model.critic is not None:
        raise Unsupported(f"{name} has no discriminator of its own that could judge packs.")
    # A copy is not validated: images have at most 4 channels, packs more.
    config = model.config.model_copy(update={"channels": m * model.config.channels})
    with torch.device(model.device):
        critic = type(model)(config).get_submodule(NETWORK)
    model.absent = tuple(each for each in model.absent if each != NETWORK)
    model.add_module(NETWORK, Packed(critic, m).train(model.training))
    model.fresh = tuple(sorted({*model.fresh, NETWORK}))
    return model
