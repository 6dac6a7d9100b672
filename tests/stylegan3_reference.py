"""StyleGAN3 by its definition, slow and plain, in modules that keep the names and attributes of NVlabs' pickles.

For tests: an oracle for configurations of which no upstream checkpoint is at hand. Filters come from scipy, signals are
up-sampled by zeros between samples, and everything may run in float64. `tests/test_convert_stylegan3.py` holds it
against outputs of upstream's own code first.
"""

from __future__ import annotations

import pickle
import sys
import types
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import scipy.special
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, pad


def separable_filter(taps: int, cutoff: float, width: float, rate: float) -> Tensor | None:
    if taps == 1:
        return None
    return torch.as_tensor(scipy.signal.firwin(taps, cutoff, width=width, fs=rate), dtype=torch.float32)


def radial_filter(taps: int, cutoff: float, width: float, rate: float) -> Tensor:
    place = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(place[:, None], place[None])
    ideal = scipy.special.j1(2 * np.pi * cutoff * radius) / (np.pi * radius)
    window = np.kaiser(taps, scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2))))
    found = ideal * np.outer(window, window)
    return torch.as_tensor(found / found.sum(), dtype=torch.float32)


def plain(x: Tensor, kernel: Tensor | None) -> Tensor:
    """Convolve each channel with a filter, keeping only what needs no values from outside."""
    if kernel is None:
        return x
    out = x.flatten(0, 1)[:, None]
    for each in (kernel,) if kernel.ndim == 2 else (kernel[None], kernel[:, None]):
        out = conv2d(out, each.to(x.dtype).flip(0, 1)[None, None])
    return out[:, 0].unflatten(0, x.shape[:2])


def zeros_between(x: Tensor, factor: int) -> Tensor:
    n, c, h, w = x.shape
    out = x.new_zeros(n, c, h, factor, w, factor)
    out[:, :, :, 0, :, 0] = x
    return out.reshape(n, c, h * factor, w * factor)


class FullyConnectedLayer(nn.Module):
    def __init__(self, inputs: int, outputs: int, activation: str = "linear", rate: float = 1, bias: float = 0):
        super().__init__()
        self.activation, self.weight_gain, self.bias_gain = activation, rate / sqrt(inputs), rate
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter((torch.randn(outputs) * 0.3 + bias) / rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x @ (self.weight * self.weight_gain).T + self.bias * self.bias_gain
        return leaky_relu(x, 0.2) * sqrt(2) if self.activation == "lrelu" else x


class MappingNetwork(nn.Module):
    def __init__(self, z: int, classes: int, w: int, num_ws: int, **kwargs: Any):
        super().__init__()
        self._init_kwargs = {"z_dim": z, "c_dim": classes, "w_dim": w, "num_ws": num_ws, **kwargs}
        self.num_layers, self.num_ws = kwargs.get("num_layers", 2), num_ws
        rate = kwargs.get("lr_multiplier", 0.01)
        self.embed = FullyConnectedLayer(classes, w) if classes else None
        for i in range(self.num_layers):
            inputs = z + (w if classes else 0) if i == 0 else w
            setattr(self, f"fc{i}", FullyConnectedLayer(inputs, w, "lrelu", rate))
        self.register_buffer("w_avg", torch.randn(w) * 0.3)

    def forward(self, z: Tensor, labels: Tensor | None, psi: float = 1, cutoff: int | None = None) -> Tensor:
        x = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        if self.embed is not None:
            y = self.embed(labels)
            x = torch.cat([x, y / (y.square().mean(1, keepdim=True) + 1e-8).sqrt()], 1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        ws = x[:, None].repeat(1, self.num_ws, 1)
        ws[:, :cutoff] = self.w_avg + psi * (ws[:, :cutoff] - self.w_avg)
        return ws


class SynthesisInput(nn.Module):
    def __init__(self, w: int, channels: int, size: int, rate: float, bandwidth: float):
        super().__init__()
        self.size, self.sampling_rate, self.bandwidth = np.array([size, size]), rate, bandwidth
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = FullyConnectedLayer(w, 4)
        self.affine.bias.data += torch.tensor([1.0, 0, 0, 0])
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", torch.randn(channels, 2) * bandwidth / 2)
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        images = []
        for t in self.affine(w):
            cosine, sine, right, down = t / t[:2].norm()
            rotation = torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])
            size = int(self.size[0])
            line = (torch.arange(size, dtype=w.dtype) + 0.5 - size / 2) / self.sampling_rate
            place = torch.stack([line[None].expand(size, -1), line[:, None].expand(-1, size)], 2)
            shown = place @ self.transform[:2, :2].T + self.transform[:2, 2]
            shown = (shown - torch.stack([right, down])) @ rotation.T
            waves = (2 * np.pi * (shown @ self.freqs.T + self.phases)).sin()
            turned = (self.freqs @ rotation @ self.transform[:2, :2]).norm(dim=1)
            room = self.sampling_rate / 2 - self.bandwidth
            waves = waves * (1 - (turned - self.bandwidth) / room).clamp(0, 1)
            images.append((waves @ self.weight.T / sqrt(len(self.weight))).permute(2, 0, 1))
        return torch.stack(images)


class SynthesisLayer(nn.Module):
    def __init__(
        self, w: int, before: dict[str, Any], after: dict[str, Any], *, torgb: bool, critical: bool, **kwargs: Any
    ):
        super().__init__()
        self.is_torgb, self.is_critically_sampled = torgb, critical
        for prefix, signal in (("in", before), ("out", after)):
            setattr(self, f"{prefix}_channels", int(signal["channels"]))
            setattr(self, f"{prefix}_size", np.array([signal["size"]] * 2).astype(int))
            setattr(self, f"{prefix}_sampling_rate", int(signal["rate"]))
            setattr(self, f"{prefix}_cutoff", signal["cutoff"])
            setattr(self, f"{prefix}_half_width", signal["half_width"])
        self.conv_kernel = 1 if torgb else kwargs.get("conv_kernel", 3)
        self.conv_clamp = kwargs.get("conv_clamp", 256)
        self.magnitude_ema_beta = kwargs.get("magnitude_ema_beta", 0.999)
        taps, raised = kwargs.get("filter_size", 6), 1 if torgb else kwargs.get("lrelu_upsampling", 2)
        rate = max(self.in_sampling_rate, self.out_sampling_rate) * raised
        self.up_factor, self.down_factor = rate // self.in_sampling_rate, rate // self.out_sampling_rate
        self.up_taps = taps * self.up_factor if self.up_factor > 1 and not torgb else 1
        self.down_taps = taps * self.down_factor if self.down_factor > 1 and not torgb else 1
        self.affine = FullyConnectedLayer(w, self.in_channels, bias=1)
        self.weight = nn.Parameter(torch.randn(self.out_channels, self.in_channels, self.conv_kernel, self.conv_kernel))
        self.bias = nn.Parameter(torch.randn(self.out_channels) * 0.3)
        self.register_buffer("magnitude_ema", torch.rand([]) + 0.8)
        up = separable_filter(self.up_taps, self.in_cutoff, 2 * self.in_half_width, rate)
        radial = kwargs.get("use_radial_filters", False) and not critical and self.down_taps > 1
        design = radial_filter if radial else separable_filter
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", design(self.down_taps, self.out_cutoff, 2 * self.out_half_width, rate))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w)
        if self.is_torgb:
            styles = styles / sqrt(self.weight[0].numel())
        images = []
        for image, style in zip(x, styles):
            weight = self.weight * style[None, :, None, None]
            if not self.is_torgb:
                weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()
            weight = weight / self.magnitude_ema.sqrt()
            images.append(conv2d(image[None], weight, padding=self.conv_kernel - 1)[0])
        x = torch.stack(images) + self.bias[:, None, None]
        wanted = (int(self.out_size[0]) - 1) * self.down_factor + 1
        total = wanted - x.shape[2] * self.up_factor + self.up_taps + self.down_taps - 2
        first = (total + self.up_factor) // 2
        x = plain(pad(zeros_between(x, self.up_factor), [first, total - first] * 2), self.up_filter) * self.up_factor**2
        if not self.is_torgb:
            x = leaky_relu(x, 0.2) * sqrt(2)
        if self.conv_clamp is not None:
            x = x.clamp(-self.conv_clamp, self.conv_clamp)
        return plain(x, self.down_filter)[:, :, :: self.down_factor, :: self.down_factor]


class SynthesisNetwork(nn.Module):
    def __init__(self, w: int, resolution: int, colours: int, **kwargs: Any):
        super().__init__()
        self._init_kwargs = {"w_dim": w, "img_resolution": resolution, "img_channels": colours, **kwargs}
        n, critical = kwargs.get("num_layers", 14), kwargs.get("num_critical", 2)
        first, stop = kwargs.get("first_cutoff", 2), kwargs.get("first_stopband", 2**2.1)
        share = np.minimum(np.arange(n + 1) / (n - critical), 1)
        cutoffs = first * (resolution / 2 / first) ** share
        stopbands = stop * (resolution / 2 * kwargs.get("last_stopband_rel", 2**0.3) / stop) ** share
        rates = np.exp2(np.ceil(np.log2(np.minimum(2 * stopbands, resolution))))
        sizes = rates + 2 * kwargs.get("margin_size", 10)
        sizes[-2:] = resolution
        channels = np.rint(np.minimum(kwargs.get("channel_base", 32768) / 2 / cutoffs, kwargs.get("channel_max", 512)))
        channels[-1] = colours
        signals = [
            {"rate": rates[i], "size": sizes[i], "cutoff": cutoffs[i], "channels": channels[i],
             "half_width": np.maximum(stopbands[i], rates[i] / 2) - cutoffs[i]}
            for i in range(n + 1)
        ]  # fmt: skip
        self.input = SynthesisInput(w, int(channels[0]), int(sizes[0]), rates[0], cutoffs[0])
        self.layer_names, self.output_scale = [], kwargs.get("output_scale", 0.25)
        for i in range(n + 1):
            layer = SynthesisLayer(
                w, signals[max(i - 1, 0)], signals[i], torgb=i == n, critical=i >= n - critical, **kwargs
            )
            self.layer_names.append(f"L{i}_{layer.out_size[0]}_{layer.out_channels}")
            setattr(self, self.layer_names[-1], layer)

    def forward(self, ws: Tensor) -> Tensor:
        x = self.input(ws[:, 0])
        for i, name in enumerate(self.layer_names):
            x = getattr(self, name)(x, ws[:, i + 1])
        return x * self.output_scale


class Generator(nn.Module):
    def __init__(
        self, *, z_dim: int, c_dim: int, w_dim: int, img_resolution: int, img_channels: int,
        mapping_kwargs: dict[str, Any] | None = None, **kwargs: Any,
    ):  # fmt: skip
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = SynthesisNetwork(w_dim, img_resolution, img_channels, **kwargs)
        self.num_ws = len(self.synthesis.layer_names) + 1
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(self, z: Tensor, labels: Tensor | None = None, psi: float = 1, cutoff: int | None = None) -> Tensor:
        return self.synthesis(self.mapping(z, labels, psi, cutoff))


class _Persistent(pickle.Pickler):
    """Writes modules as NVlabs' persistence does: a call with the class's name, its source and the attributes."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, nn.Module):
            name, rebuild = type(value).__name__, sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
            meta = {"type": "class", "version": 6, "module_src": "raise RuntimeError", "class_name": name}
            return rebuild, ({**meta, "state": vars(value)},)
        return NotImplemented


def write(path: Path, **networks: nn.Module) -> Path:
    """Write a network pickle with these networks, such as G_ema, as NVlabs' training loop does."""
    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: object) -> None:
        raise AssertionError("only named in the pickle")

    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = _reconstruct_persistent_obj.__name__
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    package.persistence = module
    sys.modules |= {package.__name__: package, module.__name__: module}
    try:
        with path.open("wb") as file:
            _Persistent(file, protocol=4).dump({**networks, "training_set_kwargs": {}, "augment_pipe": None})
    finally:
        del sys.modules[package.__name__], sys.modules[module.__name__]
    return path
