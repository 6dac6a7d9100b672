"""The projection discriminators of BigGAN and BigGAN-deep (Brock et al., 2019; Miyato and Koyama, 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo_biggan.config import BigGANConfig
from zoo_biggan.layers import SelfAttention, conv, embedding, linear, orthogonal_


class Down(nn.Module):
    """Two 3x3 convolutions and a shortcut, both halved by average pooling; the first block takes the image as it is.

    With batch norm there is one before each ReLU and one in a shortcut that has a convolution.
    """

    def __init__(self, inputs: int, outputs: int, downsample: bool, first: bool, config: BigGANConfig):
        super().__init__()
        self.downsample, self.first, self.rectified = downsample, first, config.discriminator_rectified
        spectral, inner = config.spectral_down, outputs if config.discriminator_wide else inputs
        self.conv1 = conv(inputs, inner, 3, spectral=spectral)
        self.conv2 = conv(inner, outputs, 3, spectral=spectral)
        plain = inputs == outputs and not downsample
        self.shortcut = nn.Identity() if plain else conv(inputs, outputs, 1, spectral=spectral)

        def norm(channels: int, there: bool = True) -> nn.Module:
            normed = config.discriminator_batch_norm and there
            return nn.BatchNorm2d(channels, config.norm_eps) if normed else nn.Identity()

        self.norm1, self.norm2, self.norm_shortcut = norm(inputs, not first), norm(inner), norm(inputs, not plain)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = x if self.first else F.relu(self.norm1(x))
        x = self._skip(h if self.rectified else x)
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        return x + self._shrink(h)

    def _skip(self, x: Tensor) -> Tensor:
        # Pooling commutes with a 1x1 convolution, but not with what a norm measures: the image is pooled before.
        x = self.norm_shortcut(self._shrink(x)) if self.first else self._shrink(self.norm_shortcut(x))
        out: Tensor = self.shortcut(x)
        return out

    def _shrink(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.downsample else x


class DeepDown(nn.Module):
    """A bottleneck of four convolutions; the shortcut keeps its channels and learns only the ones that are added.

    With config.deep_shortcut = "convolution" it learns all of them, wherever the shape changes.
    """

    def __init__(self, inputs: int, outputs: int, downsample: bool, config: BigGANConfig):
        super().__init__()
        self.downsample, self.rectified = downsample, config.discriminator_rectified
        self.added = config.deep_shortcut == "partial"
        spectral, inner = config.spectral_down, max(1, outputs // 4)
        self.conv1 = conv(inputs, inner, 1, spectral=spectral)
        self.conv2 = conv(inner, inner, 3, spectral=spectral)
        self.conv3 = conv(inner, inner, 3, spectral=spectral)
        self.conv4 = conv(inner, outputs, 1, spectral=spectral)
        learns = outputs > inputs or (downsample and not self.added)
        learnt = outputs - inputs if self.added else outputs
        self.shortcut = conv(inputs, learnt, 1, spectral=spectral) if learns else None

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = F.relu(x)
        x = self._skip(h if self.rectified else x)
        h = self.conv3(F.relu(self.conv2(F.relu(self.conv1(h)))))
        # A maximum and a mean do not commute: which comes first is part of the variant.
        h = self._shrink(F.relu(h)) if self.added else F.relu(self._shrink(h))
        h = self.conv4(h)
        return x + h

    def _skip(self, x: Tensor) -> Tensor:
        x = self._shrink(x)
        if self.shortcut is None:
            return x
        learnt: Tensor = self.shortcut(x)
        return torch.cat([x, learnt], 1) if self.added else learnt

    def _shrink(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2) if self.downsample else x


class Discriminator(nn.Module):
    """Images [N, channels, resolution, resolution] and class rows [N, classes] -> logits [N, 1].

    The logit is linear in the last features, summed over places, plus their product with the class's embedding (Miyato
    and Koyama, 2018, arXiv:1802.05637, eq. 5).
    """

    def __init__(self, config: BigGANConfig):
        super().__init__()
        spectral, width, down = config.spectral_down, config.width, config.down
        self.stem = conv(config.channels, down[0][1] * width, 3, spectral=spectral) if config.deep else None
        self.blocks = nn.ModuleList()
        for i, (shrinks, a, b) in enumerate(down):
            inputs = a * width or config.channels
            self.blocks.append(
                DeepDown(inputs, b * width, shrinks, config)
                if config.deep
                else Down(inputs, b * width, shrinks, i == 0, config)
            )
        self.attention = nn.ModuleDict(
            {str(i): SelfAttention(down[i][2] * width, spectral) for i in config.attention_down}
        )
        last = down[-1][2] * width
        self.linear = linear(last, 1, spectral=spectral)
        classes = config.num_classes if config.projection else 0
        self.embedding = embedding(classes, last, spectral=spectral) if classes else None
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
