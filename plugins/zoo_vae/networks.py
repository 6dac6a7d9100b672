"""The VAE's networks: residual convolutions with group norm, an encoder that halves and a decoder that doubles."""

from __future__ import annotations

from itertools import pairwise
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BOTTOM = 4                 # height and width between encoder and decoder
GROUPS = 8
SMALLEST, LARGEST = -8.0, 4.0        # bounds of the posterior's log standard deviation, against overflow


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(gcd(GROUPS, channels), channels)


class Residual(nn.Module):
    """Norm, SiLU and a 3x3 convolution, twice, plus a shortcut; the last convolution starts at zero."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.norm2 = _norm(inputs), _norm(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        x = self.shortcut(x)
        return x + h


class Encoder(nn.Module):
    """Images [N, channels, R, R] -> mean and log standard deviation [N, latent] of the posterior."""

    def __init__(self, channels: int, widths: tuple[int, ...], depth: int, latent: int):
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[-1], 3, padding=1)
        self.stages = nn.ModuleList()
        for inputs, outputs in pairwise((widths[-1], *widths[::-1])):
            blocks = [Residual(inputs, outputs), *(Residual(outputs, outputs) for _ in range(depth - 1))]
            self.stages.append(nn.Sequential(*blocks))
        self.norm = _norm(widths[0])
        self.head = nn.Linear(widths[0] * BOTTOM * BOTTOM, 2 * latent)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(images)
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else F.avg_pool2d(x, 2))
        mean, log_std = self.head(F.silu(self.norm(x)).flatten(1)).float().chunk(2, 1)
        return mean, log_std.clamp(SMALLEST, LARGEST)


class Decoder(nn.Module):
    """Latents [N, latent] and class rows [N, classes] -> the mean of the images [N, channels, R, R].

    `scale` holds the likelihood's scale: see `zoo_vae.model.VAE`.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], depth: int, latent: int, classes: int):
        super().__init__()
        self.start = widths[0]
        # With classes the label's row is the bias: each image has exactly one.
        self.head = nn.Linear(latent, widths[0] * BOTTOM * BOTTOM, bias=not classes)
        self.embedding = nn.Linear(classes, widths[0] * BOTTOM * BOTTOM, bias=False) if classes else None
        self.stages = nn.ModuleList()
        for inputs, outputs in pairwise((widths[0], *widths)):
            blocks = [Residual(inputs, outputs), *(Residual(outputs, outputs) for _ in range(depth - 1))]
            self.stages.append(nn.Sequential(*blocks))
        self.norm = _norm(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.head(latents)
        if self.embedding is not None and labels is not None:
            x = x + self.embedding(labels)
        x = x.reshape(-1, self.start, BOTTOM, BOTTOM)
        for i, stage in enumerate(self.stages):
            x = stage(x if i == 0 else F.interpolate(x, scale_factor=2))
        images: Tensor = self.to_image(F.silu(self.norm(x)))
        return images
