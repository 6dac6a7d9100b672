"""A critic of patches (PatchGAN; Isola et al., 2017, arXiv:1611.07004): one logit for each place of an image.

It sees no further than a few dozen pixels, so it judges texture and sharpness and leaves the whole to other terms. It
can stand in for the discriminator of any model, or join one that has none, such as an autoencoder.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from zoo.critics import CriticKind, attach, mark_fresh
from zoo.errors import ConfigError
from zoo.model import Model

SLOPE = 0.2                # of leaky ReLU
SPREAD = 0.02              # standard deviation of fresh weights
WIDEST = 8                 # channels of any layer, times those of the first
LAYERS = 3                 # halvings of the authors' critic, whose logits see 70x70 pixels


class PatchConfig(BaseModel):
    """What config.json may say of a critic of patches. Strict and frozen: it comes from strangers."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    kind: Literal["patch"] = "patch"
    width: int = Field(64, ge=1, le=1024, description="channels of the first layer")
    layers: int = Field(LAYERS, ge=1, le=6, description="halvings: the more, the larger are the patches")


class PatchDiscriminator(nn.Module):
    """Images [N, channels, H, W] in [-1, 1] -> logits [N, K], one for each place. It does not ask for labels.

    4x4 convolutions: `layers` that halve, one that keeps the size, one that judges (appendix 6.1.2).
    """

    def __init__(self, channels: int, width: int, layers: int):
        super().__init__()
        widths = [width * min(WIDEST, 1 << level) for level in range(layers + 1)]
        self.stem = nn.Conv2d(channels, width, 4, 2, 1)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2 if level < layers else 1, 1, bias=False), nn.BatchNorm2d(b))
            for level, (a, b) in enumerate(pairwise(widths), 1)
        )
        self.judge = nn.Conv2d(widths[-1], 1, 4, 1, 1)
        self.activation = nn.LeakyReLU(SLOPE)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=SPREAD)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, SPREAD)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.activation(self.stem(images))
        for level in self.levels:
            x = self.activation(level(x))
        logits: Tensor = self.judge(x)
        return logits.flatten(1)


def deepest(resolution: int) -> int:
    """Return how many halvings an image has room for: 3 pixels must be left, which two 4x4 convolutions make one."""
    return (resolution // 3).bit_length() - 1


def judge_patches(model: Model, *, width: int = 64, layers: int | None = None) -> Model:
    """Give a model a fresh critic of patches, in place of its discriminator if it has one, and return it.

    Args:
        width: channels of the first layer.
        layers: halvings; None: three as the authors' have, or as many as the image has room for.

    Raises:
        ConfigError: the images are too small.
    """
    if layers is None:
        layers = min(LAYERS, max(1, deepest(model.config.resolution)))
    return mark_fresh(attach(model, {"kind": "patch", "width": width, "layers": layers}))


def _built(model: Model, config: PatchConfig) -> nn.Module:
    resolution = model.config.resolution
    if config.layers > deepest(resolution):
        raise ConfigError(
            f"layers={config.layers}: images of {resolution} pixels have room for {deepest(resolution)} halvings "
            "before a critic of patches judges; give fewer layers."
        )
    return PatchDiscriminator(model.config.channels, config.width, config.layers)


PATCH = CriticKind(PatchConfig, _built, needs_own=False)
