"""Perceptual distance: how unlike two images are to a frozen network that knows what pictures show.

Zhang et al., 2018, arXiv:1801.03924, eq. 1, with all channels weighted alike: the squared distance of feature vectors
of length 1, averaged over places and over feature maps. LPIPS is the same with weights learnt from people's judgements,
which are not used here: the numbers are not LPIPS.
"""

from __future__ import annotations

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
        x = colours(images)
        if max(x.shape[2:]) < self.size:
            x = interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False)
        maps: list[Tensor] = self.network(((x + 1) / 2 - self.mean) / self.std)
        return [normalize(each.to(torch.promote_types(each.dtype, torch.float32)), dim=1) for each in maps]

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        if self.mean.device != images.device:
            self.to(images.device)
        with torch.no_grad():
            wanted = self.features(others)
        pairs = zip(self.features(images), wanted)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).mean(0)
