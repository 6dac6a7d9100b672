"""StyleGAN3's generator (Karras et al., 2021, arXiv:2106.12423): StyleGAN2's mapping and an alias-free synthesis."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from zoo_stylegan.alias_free.config import StyleGAN3Config
from zoo_stylegan.alias_free.geometry import Resampling, Signal, resampling
from zoo_stylegan.alias_free.layers import FourierFeatures, SynthesisLayer
from zoo_stylegan.layers import wide
from zoo_stylegan.networks import Mapping


def layer_resampling(config: StyleGAN3Config, index: int, before: Signal, after: Signal) -> Resampling:
    """Return how the layer of this index, not the one of colours, gets from one signal to the next."""
    return resampling(
        before,
        after,
        kernel=config.conv_kernel,
        taps=config.filter_taps,
        upsampling=config.lrelu_upsampling,
        radial=config.radial_filters and index < config.layers - config.critical_layers,
        clamp=config.conv_clamp,
    )


class Synthesis(nn.Module):
    """Styles [N, layers + 2, w] -> raw images: Fourier features, then layers that widen their band step by step."""

    def __init__(self, config: StyleGAN3Config):
        super().__init__()
        signals = config.signals()
        self.input = FourierFeatures(config.w, signals[0])
        self.layers = nn.ModuleList()
        for index, (before, after) in enumerate(pairwise([signals[0], *signals])):
            colours = index == config.layers
            self.layers.append(
                SynthesisLayer(
                    before.channels,
                    after.channels,
                    config.w,
                    kernel=1 if colours else config.conv_kernel,
                    resampling=None if colours else layer_resampling(config, index, before, after),
                    clamp=config.conv_clamp,
                )
            )
        self.scale = config.output_scale

    def forward(self, styles: Tensor, transform: Tensor | None = None, squares: list[Tensor] | None = None) -> Tensor:
        """Return raw images [N, channels, resolution, resolution].

        Args:
            styles: [N, layers + 2, w].
            transform: see `FourierFeatures`.
            squares: takes the mean square of each layer's input, from which the running means are made.
        """
        w = styles.unbind(1)
        x: Tensor = self.input(w[0], transform)
        for module, style in zip(self.layers, w[1:], strict=True):
            layer = cast("SynthesisLayer", module)
            if squares is not None:
                squares.append(wide(x.detach()).square().mean())
            x = layer(x, style)
        return wide(x) * self.scale


class Generator(nn.Module):
    """Mapping and synthesis; z [N, z], one-hot labels [N, classes] -> images [N, channels, resolution, resolution]."""

    def __init__(self, config: StyleGAN3Config):
        super().__init__()
        self.mapping = Mapping(config.latent, config.num_classes, config.w, config.mapping_layers, config.mapping_rate)
        self.w_average = nn.Buffer(torch.zeros(config.w))      # where truncation pulls to
        self.synthesis = Synthesis(config)
        self.styles = config.layers + 2      # one w for the input, one for each layer and one for the colours

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        images: Tensor = self.synthesis(self.broadcast(self.mapping(z, labels)))
        return images

    def broadcast(self, w: Tensor) -> Tensor:
        """w [N, w] -> [N, styles, w]."""
        return w[:, None].expand(-1, self.styles, -1)

    def magnitudes(self) -> list[Tensor]:
        """Return each layer's running mean square of its input."""
        return [cast("SynthesisLayer", layer).magnitude for layer in self.synthesis.layers]
