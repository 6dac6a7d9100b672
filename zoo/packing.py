"""PacGAN: a critic that judges several images at once, as their channels (Lin et al., 2018, arXiv:1712.04086)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from zoo.critics import NETWORK, CriticKind, attach, check_own, mark_fresh
from zoo.errors import ConfigError
from zoo.model import Model


class PackedConfig(BaseModel):
    """What config.json may say of a critic of packs."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    kind: Literal["packed"] = "packed"
    m: int = Field(2, ge=2, le=64, description="images that are judged at once")


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
        ConfigError: m is below 2, or too large.
    """
    if m < 2:
        raise ConfigError(f"m={m}: a pack holds at least 2 images.")
    check_own(model, "judge packs")
    return mark_fresh(attach(model, {"kind": "packed", "m": m}))


def _built(model: Model, config: PackedConfig) -> nn.Module:
    # A copy is not validated: images have at most 4 channels, packs more.
    settings = model.config.model_copy(update={"channels": config.m * model.config.channels})
    return Packed(type(model)(settings).get_submodule(NETWORK), config.m)


PACKED = CriticKind(PackedConfig, _built)
