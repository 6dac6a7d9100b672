"""The networks of TAESD (O. B. Bohan, 2023, github.com/madebyollin/taesd): convolutions and ReLU, no norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REACH = 3.0         # latents are squashed to this before they are decoded
GROUPS = 4          # of the norm in `Mixing`
WIDER = 4           # channels inside `Mixing`, times those outside


def _conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


class Mixing(nn.Module):
    """1x1 convolutions around a norm over the whole image, added to what came in: what FLUX.2's latents need."""

    def __init__(self, width: int):
        super().__init__()
        self.widen = nn.Conv2d(width, WIDER * width, 1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, WIDER * width)
        self.narrow = nn.Conv2d(WIDER * width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.narrow(F.relu(self.norm(self.widen(x))))
        return x + mixed


class Block(nn.Module):
    """Three convolutions with ReLU between them, added to what came in, and a ReLU."""

    def __init__(self, width: int, mixing: bool = False):
        super().__init__()
        self.mixing = Mixing(width) if mixing else nn.Identity()
        self.conv1, self.conv2, self.conv3 = (_conv(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixing(x)
        return F.relu(x + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))


class Encoder(nn.Module):
    """Images [N, channels, H, W] in [-1, 1] -> latents [N, latent_channels, H / factor, W / factor].

    Args:
        blocks: of each stage; each but the first starts at half the size of the one before.
        mixing: the last stage's blocks mix channels first.
    """

    def __init__(self, channels: int, latent_channels: int, width: int, blocks: tuple[int, ...], mixing: bool):
        super().__init__()
        last = len(blocks) - 1
        self.stem = _conv(channels, width)
        self.downs = nn.ModuleList(_conv(width, width, stride=2, bias=False) for _ in range(last))
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, mixing and i == last) for _ in range(n))) for i, n in enumerate(blocks)
        )
        self.head = _conv(width, latent_channels)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images.add(1).div(2))
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else self.downs[i - 1](x))
        latents: Tensor = self.head(x)
        return latents


class Decoder(nn.Module):
    """Latents [N, latent_channels, h, w] -> images [N, channels, h * factor, w * factor], not limited to [-1, 1].

    Args:
        blocks: of each stage; each but the last is followed by a doubling of the size.
        mixing: the first stage's blocks mix channels first.
    """

    def __init__(self, channels: int, latent_channels: int, width: int, blocks: tuple[int, ...], mixing: bool):
        super().__init__()
        self.stem = _conv(latent_channels, width)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, mixing and i == 0) for _ in range(n))) for i, n in enumerate(blocks)
        )
        self.ups = nn.ModuleList(_conv(width, width, bias=False) for _ in blocks[1:])
        self.to_image = _conv(width, channels)

    def forward(self, latents: Tensor) -> Tensor:
        x = F.relu(self.stem(torch.tanh(latents / REACH) * REACH))
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i < len(self.ups):
                x = self.ups[i](F.interpolate(x, scale_factor=2.0, mode="nearest"))
        images: Tensor = self.to_image(x)
        return images.mul(2).sub(1)
