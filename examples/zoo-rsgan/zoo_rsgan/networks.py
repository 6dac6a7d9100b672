"""A residual generator and discriminator, without normalisation."""

from math import log2

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu


class Block(nn.Module):
    """x [N, a, H, W] -> [N, b, H, W]: two convolutions beside a 1x1 shortcut."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.first = nn.Conv2d(a, b, 3, padding=1)
        self.second = nn.Conv2d(b, b, 3, padding=1)
        self.shortcut = nn.Conv2d(a, b, 1, bias=False)
        nn.init.zeros_(self.second.weight)      # each block begins as its shortcut

    def forward(self, x: Tensor) -> Tensor:
        inside = self.first(leaky_relu(x, 0.2))
        return self.shortcut(x) + self.second(leaky_relu(inside, 0.2))


class Generator(nn.Module):
    """z [N, latent] -> images [N, channels, resolution, resolution] in [-1, 1]."""

    def __init__(self, latent: int, channels: int, resolution: int, width: int):
        super().__init__()
        self.head = nn.Linear(latent, width * 16)
        self.blocks = nn.ModuleList(Block(width, width) for _ in range(int(log2(resolution)) - 2))
        self.to_image = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.head(z).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x = block(interpolate(x, scale_factor=2))
        return torch.tanh(self.to_image(leaky_relu(x, 0.2)))


class Discriminator(nn.Module):
    """images [N, channels, resolution, resolution] -> logits [N, 1]."""

    def __init__(self, channels: int, resolution: int, width: int):
        super().__init__()
        self.from_image = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width, width) for _ in range(int(log2(resolution)) - 2))
        self.tail = nn.Linear(width * 16, 1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.from_image(images)
        for block in self.blocks:
            x = avg_pool2d(block(x), 2)
        return self.tail(leaky_relu(x, 0.2).flatten(1))
