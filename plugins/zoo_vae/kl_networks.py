"""The encoder and decoder of AutoencoderKL (Rombach et al., 2022, arXiv:2112.10752, appendix G)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo_vae.kl_config import KLConfig

EPS = 1e-6                           # of every group norm
LOWEST, HIGHEST = -30.0, 20.0        # bounds of the posterior's log variance, against overflow


def _norm(groups: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=EPS)


class Residual(nn.Module):
    """Norm, SiLU and a 3x3 convolution, twice, plus a shortcut."""

    def __init__(self, inputs: int, outputs: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = _norm(groups, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = _norm(groups, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        added: Tensor = self.shortcut(x) + h
        return added


class Attention(nn.Module):
    """One head over all channels: each place takes from every place what resembles it, added to what came in."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = _norm(groups, channels)
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        places = self.norm(x.flatten(2)).transpose(1, 2)                                  # [N, HW, C]
        query, key, value = (layer(places)[:, None] for layer in (self.query, self.key, self.value))
        seen = F.scaled_dot_product_attention(query, key, value)[:, 0]                    # scale 1 / sqrt(C)
        found: Tensor = self.out(seen).transpose(1, 2).reshape(x.shape)
        return found + x      # in this order: it decides the layout of what follows, and that the last bits


class Down(nn.Module):
    """Half the size by a strided convolution; the border is added on the right and below alone."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        smaller: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return smaller


class Up(nn.Module):
    """Twice the size by repeated pixels, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        larger: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return larger


class Level(nn.Module):
    """The blocks of one size, each followed by attention where there is any, then the step to the next size."""

    def __init__(self, widths: list[int], groups: int, attention: bool, resample: nn.Module | None):
        super().__init__()
        self.blocks = nn.ModuleList(Residual(a, b, groups) for a, b in pairwise(widths))
        self.attentions = nn.ModuleList(Attention(width, groups) for width in widths[1:] if attention)
        self.resample = resample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x)
            if len(self.attentions):
                x = self.attentions[i](x)
        stepped: Tensor = self.resample(x)
        return stepped


class Middle(nn.Module):
    """Block, attention, block at the bottom."""

    def __init__(self, channels: int, groups: int, attention: bool):
        super().__init__()
        self.block1 = Residual(channels, channels, groups)
        self.attention = Attention(channels, groups) if attention else nn.Identity()
        self.block2 = Residual(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.block2(self.attention(self.block1(x)))
        return mixed


class Encoder(nn.Module):
    """Images [N, channels, H, W] -> moments [N, 2 * latent_channels, H / factor, W / factor]; see `posterior`."""

    def __init__(self, config: KLConfig):
        super().__init__()
        widths, groups, moments = config.widths, config.norm_groups, 2 * config.latent_channels
        self.stem = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.levels = nn.ModuleList()
        for i, (before, width) in enumerate(pairwise((widths[0], *widths))):
            down = Down(width) if i < len(widths) - 1 else None
            self.levels.append(Level([before, *[width] * config.depth], groups, i in config.attention_levels, down))
        self.middle = Middle(widths[-1], groups, config.mid_attention)
        self.norm = _norm(groups, widths[-1])
        self.head = nn.Conv2d(widths[-1], moments, 3, padding=1)
        self.quant = nn.Conv2d(moments, moments, 1) if config.quant_conv else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for level in self.levels:
            x = level(x)
        moments: Tensor = self.quant(self.head(F.silu(self.norm(self.middle(x)))))
        return moments


class Decoder(nn.Module):
    """Latents [N, latent_channels, h, w] -> images [N, channels, h * factor, w * factor], not limited to [-1, 1].

    Its levels count from the bottom, in the order that they work in.
    """

    def __init__(self, config: KLConfig):
        super().__init__()
        widths, groups, latent = config.widths[::-1], config.norm_groups, config.latent_channels
        self.quant = nn.Conv2d(latent, latent, 1) if config.post_quant_conv else nn.Identity()
        self.stem = nn.Conv2d(latent, widths[0], 3, padding=1)
        self.middle = Middle(widths[0], groups, config.mid_attention)
        self.levels = nn.ModuleList()
        for i, (before, width) in enumerate(pairwise((widths[0], *widths))):
            size = len(widths) - 1 - i                       # the encoder's number of this level
            up = Up(width) if size else None
            blocks = [before, *[width] * (config.depth + 1)]
            self.levels.append(Level(blocks, groups, size in config.attention_levels, up))
        self.norm = _norm(groups, widths[-1])
        self.to_image = nn.Conv2d(widths[-1], config.channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.middle(self.stem(self.quant(latents)))
        for level in self.levels:
            x = level(x)
        images: Tensor = self.to_image(F.silu(self.norm(x)))
        return images


def posterior(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log variance, both [N, latent_channels, h, w], of what the encoder says."""
    mean, log_variance = moments.float().chunk(2, 1)
    return mean, torch.clamp(log_variance, LOWEST, HIGHEST)
