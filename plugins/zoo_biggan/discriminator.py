"""The projection discriminators of BigGAN and BigGAN-deep (Brock et al., 2019; Miyato and Koyama, 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo_biggan.config import BigGANConfig
from zoo_biggan.layers import SelfAttention, SNConv2d, SNEmbedding, SNLinear, orthogonal_


class Down(nn.Module):
    """Two 3x3 convolutions and a shortcut, both halved by average pooling; the first block takes the image as it is."""

    def __init__(self, inputs: int, outputs: int, downsample: bool, first: bool):
        super().__init__()
        self.downsample, self.first = downsample, first
        self.conv1 = SNConv2d(inputs, outputs, 3)
        self.conv2 = SNConv2d(outputs, outputs, 3)
        plain = inputs == outputs and not downsample
        self.shortcut = nn.Identity() if plain else SNConv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if self.downsample:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)          # pooling and a 1x1 convolution commute
        x = self.shortcut(x)
        return x + h


class DeepDown(nn.Module):
    """A bottleneck of four convolutions; the shortcut keeps its channels and learns only the ones that are added."""

    def __init__(self, inputs: int, outputs: int, downsample: bool):
        super().__init__()
        self.downsample = downsample
        inner = max(1, outputs // 4)
        self.conv1 = SNConv2d(inputs, inner, 1)
        self.conv2 = SNConv2d(inner, inner, 3)
        self.conv3 = SNConv2d(inner, inner, 3)
        self.conv4 = SNConv2d(inner, outputs, 1)
        self.shortcut = SNConv2d(inputs, outputs - inputs, 1) if outputs > inputs else None

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        h = F.relu(self.conv3(F.relu(h)))
        if self.downsample:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        if self.shortcut is not None:
            x = torch.cat([x, self.shortcut(x)], 1)
        h = self.conv4(h)
        return x + h


class Discriminator(nn.Module):
    """Images [N, channels, resolution, resolution] and class rows [N, classes] -> logits [N, 1].

    The logit is linear in the last features, summed over places, plus their product with the class's embedding (Miyato
    and Koyama, 2018, arXiv:1802.05637, eq. 5).
    """

    def __init__(self, config: BigGANConfig):
        super().__init__()
        width, down = config.width, config.down
        self.stem = SNConv2d(config.channels, down[0][1] * width, 3) if config.deep else None
        self.blocks = nn.ModuleList()
        for i, (shrinks, a, b) in enumerate(down):
            inputs = a * width or config.channels
            self.blocks.append(
                DeepDown(inputs, b * width, shrinks) if config.deep else Down(inputs, b * width, shrinks, first=i == 0)
            )
        self.attention = nn.ModuleDict(
            {str(i): SelfAttention(down[i][2] * width, spectral=True) for i in config.attention_down}
        )
        last = down[-1][2] * width
        self.linear = SNLinear(last, 1)
        self.embedding = SNEmbedding(config.num_classes, last) if config.num_classes else None
        orthogonal_(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = images if self.stem is None else self.stem(images)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if str(i) in self.attention:
                x = self.attention[str(i)](x)
        features = F.relu(x).sum((2, 3))
        logits: Tensor = self.linear(features)
        if self.embedding is not None and labels is not None:
            logits = logits + (self.embedding(labels) * features).sum(1, keepdim=True)
        return logits
