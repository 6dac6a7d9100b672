"""The networks of StyleGAN2: mapping, synthesis and discriminator (Karras et al., 2020, figures 2 and 7)."""

from __future__ import annotations

from itertools import pairwise
from math import log2, sqrt
from typing import cast

import torch
from torch import Tensor, nn

from zoo.noise import Noise
from zoo.stages import Stage, amount, beyond
from zoo_stylegan.config import DiscriminatorConfig, StyleGANConfig
from zoo_stylegan.layers import Conv, Dense, ModulatedConv, activate, downsample, minibatch_stddev, upsample, wide

HALF = sqrt(0.5)      # each branch of a residual sum, so that the sum keeps unit variance


def residual(shortcut: Tensor, branch: Tensor, alpha: Tensor | None) -> Tensor:
    """Return the sum of two branches of half the variance, of the second only a share, with the variance of one."""
    if alpha is None:
        return shortcut + branch
    return (shortcut + branch * alpha) * (2 / (1 + alpha.square())).sqrt()


def unit(x: Tensor) -> Tensor:
    """Scale each row [N, C] to a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class Mapping(nn.Module):
    """z [N, z] and one-hot labels [N, classes] -> w [N, w]; without z (the discriminator's) labels alone."""

    def __init__(
        self,
        z: int,
        classes: int,
        w: int,
        layers: int,
        rate: float,                    # learning rate multiplier
        *,
        embed: int | None = None,       # numbers that embed a label; None: w
        width: int | None = None,       # numbers between the layers; None: w
    ):
        super().__init__()
        embed = embed or w
        self.embed = Dense(classes, embed) if classes else None
        widths = [z + (embed if classes else 0), *[width or w] * (layers - 1), w][: layers + 1]
        self.layers = nn.ModuleList(Dense(a, b, rate=rate, active=True) for a, b in pairwise(widths))

    def forward(self, z: Tensor | None, labels: Tensor | None) -> Tensor:
        inputs = [] if z is None else [unit(wide(z))]
        if self.embed is not None and labels is not None:
            inputs.append(unit(self.embed(labels)))
        x = torch.cat(inputs, dim=1)
        for layer in self.layers:
            x = layer(x)
        return x


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; [N, a, h, w] -> [N, b, h, w], or twice that with `up`."""

    def __init__(self, a: int, b: int, config: StyleGANConfig, resolution: int, *, up: bool = False):
        super().__init__()
        self.conv = ModulatedConv(a, b, 3, config.w, up=up, taps=config.resample_filter)
        self.noise_const = nn.Buffer(torch.randn(resolution, resolution))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(b))
        self.clamp = config.conv_clamp

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
        x = self.conv(x, w)
        if noise is not None:
            x = x + (noise * self.noise_strength).to(x.dtype)
        return activate(x + self.bias[:, None, None].to(x.dtype), gain, self.clamp)


class ToImage(nn.Module):
    """Modulated 1x1 convolution to colour channels, without demodulation."""

    def __init__(self, a: int, config: StyleGANConfig):
        super().__init__()
        self.conv = ModulatedConv(a, config.channels, 1, config.w, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(config.channels))
        self.clamp = config.conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = self.conv(x, w) + self.bias[:, None, None].to(x.dtype)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class SynthesisBlock(nn.Module):
    """All layers of one resolution; the first block starts from a learned constant."""

    def __init__(self, resolution: int, config: StyleGANConfig):
        super().__init__()
        width = config.channels_at(resolution)
        first, last = resolution == 4, resolution == config.resolution
        self.kind = config.synthesis_architecture
        if first:
            self.const = nn.Parameter(torch.randn(width, 4, 4))
        else:
            below = config.channels_at(resolution // 2)
            self.conv0 = SynthesisLayer(below, width, config, resolution, up=True)
            if self.kind == "resnet":
                self.skip = Conv(below, width, 1, bias=False, active=False, up=True, taps=config.resample_filter)
        self.conv1 = SynthesisLayer(width, width, config, resolution)
        self.to_image = ToImage(width, config) if last or self.kind == "skip" else None
        self.resolution, self.taps = resolution, config.resample_filter
        self.styles = 1 if first else 2      # how many w this block's convolutions take

    def forward(
        self, x: Tensor | None, image: Tensor | None, w: Tensor, noise: list[Tensor | None], stage: Stage | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Take features, image so far, w [N, styles + 1, w] and a noise plane a layer; return features and image."""
        alpha, idle = amount(stage, self.resolution), beyond(stage, self.resolution)
        if x is None:
            x = self.const.expand(len(w), -1, -1, -1)
            x = self.conv1(x, w[:, 0], noise[0])
        elif self.kind == "resnet" and idle:
            x = self.skip(x)
        elif self.kind == "resnet":
            y = self.skip(x, gain=HALF)
            x = self.conv0(x, w[:, 0], noise[0])
            x = residual(y, self.conv1(x, w[:, 1], noise[1], gain=HALF), alpha)
        elif not idle:
            x = self.conv0(x, w[:, 0], noise[0])
            x = self.conv1(x, w[:, 1], noise[1])
        if image is not None:
            image = upsample(image, self.taps)
        if self.to_image is not None and (image is None or not idle):
            drawn = wide(self.to_image(x, w[:, self.styles]))
            if image is not None and alpha is not None:
                drawn = drawn * alpha
            image = drawn if image is None else image + drawn
        return x, image


class Generator(nn.Module):
    """Mapping and synthesis; z [N, z], one-hot labels [N, classes] -> images [N, channels, resolution, resolution]."""

    def __init__(self, config: StyleGANConfig):
        super().__init__()
        self.mapping = Mapping(
            config.latent,
            config.num_classes,
            config.w,
            config.mapping_layers,
            config.mapping_rate,
            embed=config.embed,
            width=config.mapping_width,
        )
        self.w_average = nn.Buffer(torch.zeros(config.w))      # where truncation pulls to
        resolutions = [4 << i for i in range(int(log2(config.resolution)) - 1)]
        self.blocks = nn.ModuleDict({f"{size}x{size}": SynthesisBlock(size, config) for size in resolutions})
        self.styles = 2 * len(resolutions)      # one w for each convolution and one for the last to_image
        self.resolutions = () if config.synthesis_architecture == "orig" else tuple(resolutions)
        self.stage: Stage | None = None         # of a training that grows it
        self.taps = config.resample_filter

    def forward(self, z: Tensor, labels: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        return self.synthesis(self.broadcast(self.mapping(z, labels)), self.random_noise(len(z), noise))

    def broadcast(self, w: Tensor) -> Tensor:
        """w [N, w] -> [N, styles, w]."""
        return w[:, None].expand(-1, self.styles, -1)

    def synthesis(self, w: Tensor, noise: list[Tensor | None]) -> Tensor:
        """Styles [N, styles, w] and one noise plane a layer -> raw images."""
        x: Tensor | None = None
        image: Tensor | None = None
        at = 0
        for module in self.blocks.values():
            block = cast("SynthesisBlock", module)
            count = block.styles
            x, image = block(x, image, w[:, at : at + count + 1], noise[at : at + count], self.stage)
            at += count
        assert image is not None
        return image

    def enlarge(self, images: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C, 2H, 2W], as the synthesis doubles what it has drawn so far."""
        return upsample(images, self.taps)

    def layers(self) -> list[SynthesisLayer]:
        return [module for module in self.modules() if isinstance(module, SynthesisLayer)]

    def random_noise(self, n: int, noise: Noise | None) -> list[Tensor | None]:
        """Return fresh noise [n, 1, h, w] for each layer, or none without a source."""
        planes = [layer.noise_const for layer in self.layers()]
        return [None if noise is None else noise.normal(n, 1, *plane.shape) for plane in planes]

    def constant_noise(self) -> list[Tensor | None]:
        """Return each layer's stored noise [h, w]."""
        return [layer.noise_const for layer in self.layers()]


class DiscriminatorBlock(nn.Module):
    """[N, a, h, w] -> [N, b, h/2, w/2]: two convolutions, beside a shortcut if "resnet", after the image if "skip"."""

    def __init__(self, resolution: int, config: DiscriminatorConfig):
        super().__init__()
        a, b = config.discriminator_channels_at(resolution), config.discriminator_channels_at(resolution // 2)
        clamp, taps, kind = config.judging_clamp, config.resample_filter, config.discriminator_architecture
        joins = kind == "skip" and resolution < config.resolution
        self.from_image = Conv(config.channels, a, 1, clamp=clamp) if joins else None
        self.conv0 = Conv(a, a, 3, clamp=clamp)
        self.conv1 = Conv(a, b, 3, down=True, clamp=clamp, taps=taps)
        self.skip = Conv(a, b, 1, bias=False, active=False, down=True, taps=taps) if kind == "resnet" else None
        self.resolution = resolution

    def forward(self, x: Tensor | None, image: Tensor, stage: Stage | None = None) -> Tensor | None:
        """Take features and, for "skip", the image at their resolution; without features the image is all there is."""
        alpha, idle = amount(stage, self.resolution), beyond(stage, self.resolution)
        if self.skip is not None and x is not None:
            if idle:
                return cast("Tensor", self.skip(x))
            return residual(self.skip(x, gain=HALF), self.conv1(self.conv0(x), gain=HALF), alpha)
        if idle:
            return None
        if self.from_image is not None:
            x = self.from_image(image) if x is None else x + self.from_image(image)
        out: Tensor = self.conv1(self.conv0(x))
        return out if alpha is None else out * alpha


class Discriminator(nn.Module):
    """Images [N, channels, resolution, resolution] and one-hot labels -> logits [N, 1]."""

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        width = config.discriminator_channels_at(4)
        clamp, self.taps = config.judging_clamp, config.resample_filter
        highest = config.discriminator_channels_at(config.resolution)
        self.from_image = Conv(config.channels, highest, 1, clamp=clamp)
        resolutions = [config.resolution >> i for i in range(int(log2(config.resolution)) - 2)]
        self.blocks = nn.ModuleDict({f"{size}x{size}": DiscriminatorBlock(size, config) for size in resolutions})
        kind = config.discriminator_architecture
        skips = kind == "skip"
        self.resolutions = () if kind == "orig" else (4, *resolutions[::-1])
        self.stage: Stage | None = None      # of a training that grows it
        self.from_image_4x4 = Conv(config.channels, width, 1) if skips else None      # never clamped upstream
        self.group, self.extra = config.stddev_group, config.stddev_channels
        self.conv = Conv(width + self.extra, width, 3, clamp=clamp)
        self.dense = Dense(width * 16, width, active=True)
        self.label_size = config.label_size if config.num_classes else 1
        self.head = Dense(width, self.label_size)
        self.mapping = label_mapping(config) if config.num_classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x: Tensor = self.from_image(images)
        for block in self.blocks.values():
            x = block(x, images, self.stage)
            if self.from_image_4x4 is not None:
                images = downsample(images, self.taps)
        if self.from_image_4x4 is not None:
            x = self.from_image_4x4(images) if x is None else x + self.from_image_4x4(images)
        if self.extra:
            x = minibatch_stddev(x, self.group, self.extra)
        x = self.head(self.dense(self.conv(x).flatten(1)))
        if self.mapping is not None:      # projection on the embedded label (Miyato and Koyama, 2018)
            x = (x * self.mapping(None, labels)).sum(1, keepdim=True) / sqrt(self.label_size)
        logits: Tensor = x
        return logits


def label_mapping(config: DiscriminatorConfig) -> Mapping:
    """Return the discriminator's mapping from labels to directions; what it has no setting for is the generator's."""
    layers, rate = config.discriminator_mapping_layers, config.discriminator_mapping_rate
    return Mapping(
        0,
        config.num_classes,
        config.label_size,
        config.mapping_layers if layers is None else layers,
        config.mapping_rate if rate is None else rate,
        embed=config.discriminator_embed,
        width=config.discriminator_mapping_width,
    )
