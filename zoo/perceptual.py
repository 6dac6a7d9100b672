"""Perceptual distance: how unlike two images are to a frozen network that knows what pictures show.

Zhang et al., 2018, arXiv:1801.03924, eq. 1, with all channels weighted alike: the squared distance of feature vectors
of length 1, averaged over places and over feature maps. `zoo.metrics.lpips` is the same with weights learnt from
people's judgements, summed over the maps of another network: the numbers here are not LPIPS.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from zoo.backbones import LITE0, backbone
from zoo.errors import ConfigError, WeightsError
from zoo.projected import colours, frozen


class Perceptual(nn.Module):
    """Two batches of images [N, C, H, W] in [-1, 1] -> their distance [N], from 0 to 4.

    Everything in it is a buffer: nothing can train it. It is no part of a model, so it is neither saved nor published.

    Args:
        network: timm's name of a convolutional network.
        size: pixels that smaller images are brought to; larger ones stay as they are.
        pretrained: False leaves the network random.

    Raises:
        UnknownName, ConfigError: no such network, or one that gives no feature maps or whose weights are not to be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: str = LITE0, *, size: int = 64, pretrained: bool = True):
        super().__init__()
        try:
            built: Any = backbone(network, weights=pretrained, features_only=True)
        except WeightsError as error:
            raise ConfigError(f"network={network!r}: {error}") from error
        self.network, self.size = frozen(built), size
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(built.pretrained_cfg[name]).view(1, 3, 1, 1))
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Do nothing: the frozen network's batch norms keep what they were trained with."""
        return super().train(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the network's feature maps [N, c, h, w], the largest first, each place's vector of length 1."""
        x = enlarged(colours(images), self.size)
        return directions(self.network(((x + 1) / 2 - self.mean) / self.std))

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        if self.mean.device != images.device:
            self.to(images.device)
        with torch.no_grad():
            wanted = self.features(others)
        pairs = zip(self.features(images), wanted)
        return torch.stack([difference(a, b) for a, b in pairs]).mean(0)


def enlarged(images: Tensor, size: int) -> Tensor:
    """Return images [N, C, H, W] brought to size x size, bilinearly, if both sides are smaller; others as they are."""
    if max(images.shape[2:]) >= size:
        return images
    return interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def directions(maps: Iterable[Tensor]) -> list[Tensor]:
    """Return feature maps [N, c, h, w], float32 at least, with each place's vector at length 1 unless it is zero."""
    return [normalize(each.to(torch.promote_types(each.dtype, torch.float32)), dim=1) for each in maps]


def difference(a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the squared distance [N] of feature maps [N, c, h, w], channels weighted by [c], averaged over places."""
    squared = (a - b).square()
    if weights is not None:
        squared = squared * weights.view(1, -1, 1, 1)
    return squared.sum(1).mean((1, 2))
