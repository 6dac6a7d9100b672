"""The generators of BigGAN and BigGAN-deep (Brock et al., 2019, Figures 15 and 16)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo_biggan.config import BOTTOM, BigGANConfig
from zoo_biggan.layers import (
    ConditionalNorm,
    Embedding,
    PlainNorm,
    SelfAttention,
    SNConv2d,
    Spectral,
    conv,
    linear,
    orthogonal_,
)

Norm = Callable[[int], nn.Module]            # channels -> a norm called with (x, condition, psi)


class Up(nn.Module):
    """Two 3x3 convolutions, each after a conditional norm, and a shortcut; upsamples before the first."""

    def __init__(self, inputs: int, outputs: int, upsample: bool, norm: Norm, spectral: Spectral | None):
        super().__init__()
        self.upsample = upsample
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1 = conv(inputs, outputs, 3, spectral=spectral)
        self.conv2 = conv(outputs, outputs, 3, spectral=spectral)
        plain = inputs == outputs and not upsample
        self.shortcut = nn.Identity() if plain else conv(inputs, outputs, 1, spectral=spectral)

    def forward(self, x: Tensor, condition: Tensor | None, psi: float) -> Tensor:
        h: Tensor = F.relu(self.norm1(x, condition, psi))
        if self.upsample:
            h = F.interpolate(h, scale_factor=2)
        h = F.relu(self.norm2(self.conv1(h), condition, psi))
        # A 1x1 convolution and nearest-neighbour upsampling commute; at the small size it costs a quarter.
        x = self.shortcut(x)
        if self.upsample:
            x = F.interpolate(x, scale_factor=2)
        h = self.conv2(h)
        return x + h


class DeepUp(nn.Module):
    """A bottleneck of four convolutions at a quarter of the channels; the shortcut drops the last channels.

    With `learnt` the shortcut is a 1x1 convolution instead.
    """

    def __init__(
        self, inputs: int, outputs: int, upsample: bool, norm: Norm, spectral: Spectral | None, *, learnt: bool = False
    ):
        super().__init__()
        self.upsample, self.outputs = upsample, outputs
        inner = max(1, inputs // 4)
        self.norm1, self.norm2, self.norm3, self.norm4 = norm(inputs), norm(inner), norm(inner), norm(inner)
        self.conv1 = conv(inputs, inner, 1, spectral=spectral)
        self.conv2 = conv(inner, inner, 3, spectral=spectral)
        self.conv3 = conv(inner, inner, 3, spectral=spectral)
        self.conv4 = conv(inner, outputs, 1, spectral=spectral)
        self.shortcut = conv(inputs, outputs, 1, spectral=spectral) if learnt else None

    def forward(self, x: Tensor, condition: Tensor | None, psi: float) -> Tensor:
        h: Tensor = self.conv1(F.relu(self.norm1(x, condition, psi)))
        h = F.relu(self.norm2(h, condition, psi))
        x = x[:, : self.outputs] if self.shortcut is None else self.shortcut(x)
        if self.upsample:
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.conv3(F.relu(self.norm3(self.conv2(h), condition, psi)))
        h = self.conv4(F.relu(self.norm4(h, condition, psi)))
        return x + h


class Generator(nn.Module):
    """z [N, latent] and class rows [N, classes] -> images [N, channels, resolution, resolution] in [-1, 1]."""

    def __init__(self, config: BigGANConfig):
        super().__init__()
        spectral, width, up = config.spectral_up, config.width, config.up
        shared = bool(config.num_classes and config.embedding)
        classes = config.embedding if shared else config.num_classes     # size of the class part of a condition
        self.embedding = Embedding(config.num_classes, config.embedding) if shared else None
        self.whole = config.deep and config.hierarchical                 # every place gets all of z and the class
        self.chunk = config.latent_size // (len(up) + 1) if config.hierarchical and not config.deep else None
        head = classes + config.latent_size if self.whole else self.chunk or config.latent_size
        size = head if self.whole else classes + (self.chunk or 0)

        def norm(channels: int) -> nn.Module:
            kept = (channels, config.norm_eps, config.statistics, config.interpolation == "swapped")
            # Without a shared embedding the norms hold tables of gains, looked up: spectral norm does not apply.
            looked_up = bool(classes) and not shared
            return ConditionalNorm(*kept, size, None if looked_up else spectral) if size else PlainNorm(*kept)

        self.start = up[0][1] * width
        self.linear = linear(head, self.start * BOTTOM * BOTTOM, spectral=spectral)
        block = partial(DeepUp, learnt=config.deep_shortcut == "convolution") if config.deep else Up
        self.blocks = nn.ModuleList(block(a * width, b * width, grows, norm, spectral) for grows, a, b in up)
        self.attention = nn.ModuleDict({str(i): SelfAttention(up[i][2] * width, spectral) for i in config.attention_up})
        last = up[-1][2] * width
        self.norm = PlainNorm(last, config.norm_eps, config.statistics, config.interpolation == "swapped")
        if spectral is not None and config.spare_channels:
            outputs, stored = config.channels + config.spare_channels, spectral == "stored"
            self.to_image: nn.Conv2d = SNConv2d(last, outputs, 3, stored=stored, used=config.channels)
        else:
            self.to_image = conv(last, config.channels, 3, spectral=spectral)
        orthogonal_(self)

    def forward(self, z: Tensor, labels: Tensor | None = None, psi: float = 1.0) -> Tensor:
        """Return images; `psi` picks the batch-norm statistics in evaluation and changes nothing else."""
        head, conditions = self._conditions(z, labels)
        x = self.linear(head).reshape(-1, self.start, BOTTOM, BOTTOM)
        for i, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            x = block(x, condition, psi)
            if str(i) in self.attention:
                x = self.attention[str(i)](x)
        images: Tensor = self.to_image(F.relu(self.norm(x, None, psi)))
        return images.tanh()

    def _conditions(self, z: Tensor, labels: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
        """Return what the head takes, and the condition of each block: [class part, z part]."""
        rows = labels if labels is None or self.embedding is None else self.embedding(labels)
        known = [] if rows is None else [rows]
        if self.whole:
            whole = torch.cat([*known, z], 1)
            return whole, [whole] * len(self.blocks)
        if self.chunk:
            head, *chunks = torch.split(z, self.chunk, 1)
            return head, [torch.cat([*known, chunk], 1) for chunk in chunks]
        return z, [rows] * len(self.blocks)
