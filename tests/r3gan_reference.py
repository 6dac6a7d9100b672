"""Networks laid out as in the R3GAN authors' repository (class and attribute names, formulas), and their pickles.

Written for these tests from the published structure; every step is spelt out, nothing is shared with the plugin.
"""

from __future__ import annotations

import pickle
import sys
from itertools import pairwise
from math import sqrt
from types import ModuleType

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def _module(name: str, **members: type) -> ModuleType:
    module = ModuleType(name)
    for member, cls in members.items():
        cls.__module__, cls.__qualname__ = name, member
        setattr(module, member, cls)
    return module


class Convolution(nn.Module):
    def __init__(self, a, b, kernel, groups=1):
        super().__init__()
        self.Layer = nn.Conv2d(a, b, kernel, padding=kernel // 2, groups=groups, bias=False)

    def forward(self, x):
        return self.Layer(x)


class BiasedActivationCUDA(nn.Module):
    def __init__(self, units):
        super().__init__()
        self.Bias = nn.Parameter(torch.randn(units))

    def forward(self, x):
        return F.leaky_relu(x + self.Bias[:, None, None], 0.2)


class ResidualBlock(nn.Module):
    def __init__(self, width, groups, expansion):
        super().__init__()
        self.LinearLayer1 = Convolution(width, width * expansion, 1)
        self.LinearLayer2 = Convolution(width * expansion, width * expansion, 3, groups)
        self.LinearLayer3 = Convolution(width * expansion, width, 1)
        self.NonLinearity1 = BiasedActivationCUDA(width * expansion)
        self.NonLinearity2 = BiasedActivationCUDA(width * expansion)

    def forward(self, x):
        y = self.NonLinearity1(self.LinearLayer1(x))
        return x + self.LinearLayer3(self.NonLinearity2(self.LinearLayer2(y)))


class _Resampler(nn.Module):
    def __init__(self):
        super().__init__()
        row = np.convolve([1, 2, 1], [1, 1]).reshape(1, -1)
        self.register_buffer("Kernel", torch.tensor(row.T @ row / 64, dtype=torch.float32))


class InterpolativeUpsamplerCUDA(_Resampler):
    def forward(self, x):
        n, c, h, w = x.shape
        spread = torch.zeros(n * c, 1, 2 * h, 2 * w, dtype=x.dtype)
        spread[:, 0, ::2, ::2] = x.reshape(n * c, h, w)      # zeros between; two before and one after, then the filter
        return F.conv2d(F.pad(spread, [2, 1, 2, 1]), 4 * self.Kernel[None, None]).view(n, c, 2 * h, 2 * w)


class InterpolativeDownsamplerCUDA(_Resampler):
    def forward(self, x):
        n, c, h, w = x.shape
        filtered = F.conv2d(F.pad(x.reshape(n * c, 1, h, w), [1, 1, 1, 1]), self.Kernel[None, None])
        return filtered[:, :, ::2, ::2].reshape(n, c, h // 2, w // 2)


class UpsampleLayer(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.Resampler = InterpolativeUpsamplerCUDA()
        if a != b:
            self.LinearLayer = Convolution(a, b, 1)

    def forward(self, x):
        return self.Resampler(self.LinearLayer(x) if hasattr(self, "LinearLayer") else x)


class DownsampleLayer(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.Resampler = InterpolativeDownsamplerCUDA()
        if a != b:
            self.LinearLayer = Convolution(a, b, 1)

    def forward(self, x):
        x = self.Resampler(x)
        return self.LinearLayer(x) if hasattr(self, "LinearLayer") else x


class GenerativeBasis(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.Basis = nn.Parameter(torch.randn(b, 4, 4))
        self.LinearLayer = nn.Linear(a, b, bias=False)

    def forward(self, x):
        return torch.einsum("chw,nc->nchw", self.Basis, self.LinearLayer(x))


class DiscriminativeBasis(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.Basis = nn.Conv2d(a, a, 4, groups=a, bias=False)
        self.LinearLayer = nn.Linear(a, b, bias=False)

    def forward(self, x):
        return self.LinearLayer((x * self.Basis.weight[None, :, 0]).sum((2, 3)))


class GeneratorStage(nn.Module):
    def __init__(self, transition, blocks):
        super().__init__()
        self.Layers = nn.ModuleList([transition, *blocks])
        self.DataType = torch.bfloat16

    def forward(self, x):
        for layer in self.Layers:
            x = layer(x)
        return x


class DiscriminatorStage(GeneratorStage):
    def __init__(self, blocks, transition):
        super().__init__(transition, [])
        self.Layers = nn.ModuleList([*blocks, transition])


class Generator(nn.Module):
    def __init__(self, noise, widths, groups, blocks, expansion, classes, embedding):
        super().__init__()
        ends = [GenerativeBasis(noise + embedding, widths[0])]
        ends += [UpsampleLayer(a, b) for a, b in pairwise(widths)]
        self.MainLayers = nn.ModuleList(
            GeneratorStage(end, [ResidualBlock(w, g, expansion) for _ in range(blocks)])
            for end, w, g in zip(ends, widths, groups)
        )
        self.AggregationLayer = Convolution(widths[-1], 3, 1)
        if classes:
            self.EmbeddingLayer = nn.Linear(classes, embedding, bias=False)

    def forward(self, x, y=None):
        x = x if y is None else torch.cat([x, self.EmbeddingLayer(y)], 1)
        for layer in self.MainLayers:
            x = layer(x)
        return self.AggregationLayer(x)


class Discriminator(nn.Module):
    def __init__(self, widths, groups, blocks, expansion, classes, embedding):
        super().__init__()
        self.ExtractionLayer = Convolution(3, widths[0], 1)
        ends = [DownsampleLayer(a, b) for a, b in pairwise(widths)]
        ends += [DiscriminativeBasis(widths[-1], embedding if classes else 1)]
        self.MainLayers = nn.ModuleList(
            DiscriminatorStage([ResidualBlock(w, g, expansion) for _ in range(blocks)], end)
            for end, w, g in zip(ends, widths, groups)
        )
        if classes:
            self.EmbeddingLayer = nn.Linear(classes, embedding, bias=False)

    def forward(self, x, y=None):
        x = self.ExtractionLayer(x)
        for layer in self.MainLayers:
            x = layer(x)
        return x if y is None else (x * self.EmbeddingLayer(y)).sum(1, keepdim=True)


def _wrapper(inner: type) -> type:
    """The class that the repository's training code wraps a network in."""

    class Wrapper(nn.Module):
        def __init__(self, classes, **settings):
            super().__init__()
            self.Model = inner(classes=classes, **settings)
            self.c_dim = classes

        def forward(self, x, y=None):
            return self.Model(x, y)

    return Wrapper


LAYERS = (Convolution, ResidualBlock, UpsampleLayer, DownsampleLayer, GenerativeBasis, DiscriminativeBasis,
          GeneratorStage, DiscriminatorStage, Generator, Discriminator)  # fmt: skip
WRAPPERS = {"Generator": _wrapper(Generator), "Discriminator": _wrapper(Discriminator)}
MODULES = {
    "R3GAN": _module("R3GAN"),
    "training": _module("training"),
    "R3GAN.Networks": _module("R3GAN.Networks", **{cls.__name__: cls for cls in LAYERS}),
    "R3GAN.Resamplers": _module("R3GAN.Resamplers", InterpolativeUpsamplerCUDA=InterpolativeUpsamplerCUDA,
                                InterpolativeDownsamplerCUDA=InterpolativeDownsamplerCUDA),
    "R3GAN.FusedOperators": _module("R3GAN.FusedOperators", BiasedActivationCUDA=BiasedActivationCUDA),
    "training.networks": _module("training.networks", **WRAPPERS),
}  # fmt: skip


def networks(classes=0, widths=(16, 16, 8), group=4, blocks=2, expansion=2, noise=6, embedding=5):
    """Return G, G_ema and D with random weights, those that begin as zero included."""
    torch.manual_seed(0)
    groups = [width * expansion // group for width in widths]
    shared = {"blocks": blocks, "expansion": expansion}
    made = {
        name: WRAPPERS["Generator"](classes, noise=noise, widths=widths, groups=groups,
                                    embedding=embedding if classes else 0, **shared)
        for name in ("G", "G_ema")
    }  # fmt: skip
    made["D"] = WRAPPERS["Discriminator"](
        classes, widths=widths[::-1], groups=groups[::-1], embedding=widths[0], **shared
    )
    with torch.no_grad():
        for network in made.values():
            for weight in network.parameters():
                weight.normal_(0, 1 / sqrt(weight[0].numel() or 1))
    return made


def pickled(made, **more) -> bytes:
    """Return what the repository's training loop writes: the networks' pickles refer to its modules by name."""
    kept = {name: sys.modules.get(name) for name in MODULES}
    sys.modules.update(MODULES)
    try:
        return pickle.dumps({**made, "augment_pipe": None, "training_set_kwargs": {"path": "x.zip"}, **more})
    finally:
        for name, module in kept.items():
            sys.modules.pop(name) if module is None else sys.modules.__setitem__(name, module)
