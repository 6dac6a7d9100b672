"""The networks of R3GAN (Huang et al., 2024, arXiv:2501.05441, section 3): residual blocks and bilinear resampling.

Nothing is normalised. Instead each block begins as the identity: its last convolution is zero, and the others are
scaled down with the number of blocks (fix-up, Zhang et al., 2019, arXiv:1901.09321).
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

from zoo.stages import Stage as TrainingStage
from zoo.stages import amount, beyond
from zoo_r3gan.config import R3GANConfig

SLOPE = 0.2                                 # of leaky ReLU
GAIN = sqrt(2 / (1 + SLOPE**2))             # keeps the variance of what passes through one (He et al., 2015)
LAYERS = 3                                  # convolutions in a block


def low_pass(x: Tensor) -> Tensor:
    """Return the filter [1, 3, 3, 1] in both directions as depthwise weights [C, 1, 4, 4] of sum 1 for x [N, C, H, W].

    It interpolates linearly between pixels; it is computed anew, so that no tensor is kept from one mode to another.
    """
    row = 4 - 2 * (torch.arange(4, device=x.device, dtype=x.dtype) - 1.5).abs()
    return (torch.outer(row, row) / 64).expand(x.shape[1], 1, 4, 4)


def upsample(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2H, 2W], bilinear; beyond the border lies zero."""
    return conv_transpose2d(x, 4 * low_pass(x), stride=2, padding=1, groups=x.shape[1])


def downsample(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, H/2, W/2], bilinear; beyond the border lies zero."""
    return conv2d(x, low_pass(x), stride=2, padding=1, groups=x.shape[1])


def scaled(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> Any:
    """Draw a layer's weights from N(0, gain^2 / inputs), set its bias to zero and return it."""
    nn.init.normal_(layer.weight, 0.0, gain / sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """An inverted bottleneck with a grouped convolution, [N, C, H, W] -> [N, C, H, W].

    Args:
        groups: of the 3x3 convolution.
        depth: blocks in the whole network, which the initial weights shrink with.
    """

    def __init__(self, channels: int, expansion: int, groups: int, depth: int):
        super().__init__()
        inside, gain = channels * expansion, GAIN * depth ** (-1 / (2 * LAYERS - 2))
        self.widen = scaled(nn.Conv2d(channels, inside, 1), gain)
        self.mix = scaled(nn.Conv2d(inside, inside, 3, padding=1, groups=groups), gain)
        self.narrow = scaled(nn.Conv2d(inside, channels, 1, bias=False), 0.0)

    def forward(self, x: Tensor, alpha: Tensor | None = None) -> Tensor:
        y = leaky_relu(self.widen(x), SLOPE)
        y = self.narrow(leaky_relu(self.mix(y), SLOPE))
        out: Tensor = x + (y if alpha is None else y * alpha)
        return out


class Stage(nn.Module):
    """What happens at one resolution: its blocks, and between it and the next smaller one a fit of their channels."""

    def __init__(self, config: R3GANConfig, resolution: int, *, up: bool):
        super().__init__()
        channels, smaller = config.channels_at(resolution), config.channels_at(max(4, resolution // 2))
        depth, groups = config.blocks * len(config.stages), config.groups_at(resolution)
        self.blocks = nn.Sequential(*(Block(channels, config.expansion, groups, depth) for _ in range(config.blocks)))
        a, b = (smaller, channels) if up else (channels, smaller)
        self.fit = nn.Identity() if a == b else scaled(nn.Conv2d(a, b, 1, bias=False))
        self.resolution, self.smallest = resolution, resolution == 4

    def refine(self, x: Tensor, stage: TrainingStage | None) -> Tensor:
        """Apply the blocks, as far as they have a part in a training's stage."""
        if not beyond(stage, self.resolution):
            for block in self.blocks:
                x = block(x, amount(stage, self.resolution))
        return x


class Up(Stage):
    """A stage of the generator: widths are fitted, the image doubled, then come the blocks."""

    def __init__(self, config: R3GANConfig, resolution: int):
        super().__init__(config, resolution, up=True)

    def forward(self, x: Tensor, stage: TrainingStage | None = None) -> Tensor:
        return self.refine(x if self.smallest else upsample(self.fit(x)), stage)


class Down(Stage):
    """A stage of the discriminator: first the blocks, then the image is halved and widths are fitted."""

    def __init__(self, config: R3GANConfig, resolution: int):
        super().__init__(config, resolution, up=False)

    def forward(self, x: Tensor, stage: TrainingStage | None = None) -> Tensor:
        x = self.refine(x, stage)
        out: Tensor = x if self.smallest else self.fit(downsample(x))
        return out


class Generator(nn.Module):
    """z [N, latent] and one-hot labels [N, classes] -> images [N, channels, resolution, resolution], unbounded."""

    def __init__(self, config: R3GANConfig):
        super().__init__()
        channels, classes = config.channels_at(4), config.num_classes
        if classes:
            self.embedding = scaled(nn.Linear(classes, config.embedding, bias=False))
        self.head = scaled(nn.Linear(config.latent + (config.embedding if classes else 0), channels, bias=False))
        self.basis = nn.Parameter(torch.randn(channels, 4, 4))      # z weighs these 4x4 pictures
        self.stages = nn.ModuleDict({str(resolution): Up(config, resolution) for resolution in config.stages})
        self.to_image = scaled(nn.Conv2d(config.channels_at(config.resolution), config.channels, 1, bias=False))
        self.resolutions = config.stages
        self.stage: TrainingStage | None = None      # of a training that grows it

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is not None:
            z = torch.cat([z, self.embedding(labels)], dim=1)
        x = self.head(z)[:, :, None, None] * self.basis
        for stage in self.stages.values():
            x = stage(x, self.stage)
        images: Tensor = self.to_image(x)
        return images

    def enlarge(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, 2H, 2W], as its stages double what they are given."""
        return upsample(images)


class Discriminator(nn.Module):
    """Images [N, channels, resolution, resolution] and one-hot labels -> logits [N, 1].

    With classes, the logit is a product of what is seen and an embedding of the class (Miyato and Koyama, 2018,
    arXiv:1802.05637).
    """

    def __init__(self, config: R3GANConfig):
        super().__init__()
        channels, classes = config.channels_at(4), config.num_classes
        self.from_image = scaled(nn.Conv2d(config.channels, config.channels_at(config.resolution), 1, bias=False))
        self.stages = nn.ModuleDict({str(resolution): Down(config, resolution) for resolution in config.stages[::-1]})
        self.basis = scaled(nn.Conv2d(channels, channels, 4, groups=channels, bias=False))
        self.head = scaled(nn.Linear(channels, channels if classes else 1, bias=False))
        if classes:
            self.embedding = scaled(nn.Linear(classes, channels, bias=False), 1 / sqrt(channels))
        self.resolutions = config.stages
        self.stage: TrainingStage | None = None      # of a training that grows it

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.from_image(images)
        for stage in self.stages.values():
            x = stage(x, self.stage)
        logits: Tensor = self.head(self.basis(x).flatten(1))
        return logits if labels is None else (logits * self.embedding(labels)).sum(1, keepdim=True)
