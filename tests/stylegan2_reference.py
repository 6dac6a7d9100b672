"""StyleGAN2 by its definition, slow and plain, in modules with the names and attributes of NVlabs' pickles.

For tests: an oracle for configurations of which no upstream checkpoint is at hand, and a writer of files in upstream's
three layouts. Nothing of the plugin is used. Whether it computes what upstream's own code computes is tested first, on
the outputs that lie in tests/parity.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from math import log2, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, pad

Taps = tuple[float, ...]
BINOMIAL = (1.0, 3.0, 3.0, 1.0)


def low_pass(taps: Taps) -> Tensor:
    """The filter as upstream stores it: a plane, or a row where it is long."""
    row = torch.tensor(taps)
    kernel = torch.outer(row, row) if len(taps) < 8 else row
    return kernel / kernel.sum()


def resample(x: Tensor, kernel: Tensor, before: int, after: int, up: int = 1) -> Tensor:
    """Put zeros after each pixel, pad, and convolve in the mathematical sense."""
    kernel = kernel if kernel.ndim == 2 else torch.outer(kernel, kernel)
    n, c, h, w = x.shape
    spread = x.new_zeros(n, c, h, up, w, up)
    spread[:, :, :, 0, :, 0] = x
    spread = pad(spread.reshape(n * c, 1, h * up, w * up), (before, after, before, after))
    out = conv2d(spread, up**2 * kernel.flip(0, 1)[None, None])
    return out.reshape(n, c, *out.shape[2:])


def doubled(x: Tensor, kernel: Tensor, padding: int = 0) -> Tensor:
    return resample(x, kernel, padding + (len(kernel) + 1) // 2, padding + (len(kernel) - 2) // 2, up=2)


def smoothed(x: Tensor, kernel: Tensor, padding: int = 0) -> Tensor:
    """Filtered, so that every second pixel, or a convolution with stride 2, halves the image."""
    return resample(x, kernel, padding + (len(kernel) - 1) // 2, padding + (len(kernel) - 2) // 2)


def activate(x: Tensor, kind: str, gain: float = 1.0, clamp: float | None = None) -> Tensor:
    x = (leaky_relu(x, 0.2) * sqrt(2) if kind == "lrelu" else x) * gain
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


class Layer(nn.Module):
    """A weight and a bias, drawn so that no mistake stays unseen; buffers if they stood still in training."""

    def store(self, *shape: int, bias: bool = True, mean: float = 0.0, rate: float = 1.0, frozen: bool = False) -> None:
        kind = nn.Buffer if frozen else nn.Parameter
        self.weight = kind(torch.randn(shape) / rate)
        self.bias = kind((torch.randn(shape[0]) * 0.3 + mean) / rate) if bias else None


class FullyConnectedLayer(Layer):
    def __init__(self, inputs: int, outputs: int, activation: str = "linear", rate: float = 1, mean: float = 0):
        super().__init__()
        self.activation, self.weight_gain, self.bias_gain = activation, rate / sqrt(inputs), rate
        self.store(outputs, inputs, mean=mean, rate=rate)

    def forward(self, x: Tensor) -> Tensor:
        return activate(x @ (self.weight * self.weight_gain).T + self.bias * self.bias_gain, self.activation)


class Conv2dLayer(Layer):
    def __init__(
        self, inputs: int, outputs: int, size: int, activation: str = "lrelu", *, up: int = 1, down: int = 1,
        clamp: float | None = None, taps: Taps = BINOMIAL, bias: bool = True, frozen: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, clamp
        self.weight_gain, self.padding = 1 / sqrt(inputs * size**2), size // 2
        self.resample_filter = nn.Buffer(low_pass(taps))
        self.store(outputs, inputs, size, size, bias=bias, frozen=frozen)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        weight = self.weight * self.weight_gain
        if self.up > 1:
            x = conv2d(doubled(x, self.resample_filter, self.padding), weight.flip(2, 3))
        elif self.down > 1:
            x = conv2d(smoothed(x, self.resample_filter, self.padding), weight, stride=2)
        else:
            x = conv2d(x, weight, padding=self.padding)
        x = x if self.bias is None else x + self.bias[:, None, None]
        return activate(x, self.activation, gain, self.conv_clamp)


def normalised(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


class MappingNetwork(nn.Module):
    def __init__(
        self, z: int, c: int, w: int, num_ws: int | None, *, layers: int = 8, rate: float = 0.01,
        embed: int | None = None, width: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.num_layers = z, c, w, num_ws, layers
        embed = (embed or w) if c else 0
        if c:
            self.embed = FullyConnectedLayer(c, embed)
        sizes = [z + embed, *[width or w] * (layers - 1), w]
        for i in range(layers):
            self.add_module(f"fc{i}", FullyConnectedLayer(sizes[i], sizes[i + 1], "lrelu", rate))
        if num_ws is not None:
            self.w_avg = nn.Buffer(torch.randn(w))

    def forward(self, z: Tensor | None, c: Tensor | None) -> Tensor:
        parts = [normalised(z)] if self.z_dim else []
        parts += [normalised(self.embed(c))] if self.c_dim else []
        x = torch.cat(parts, 1)
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x if self.num_ws is None else x[:, None].repeat(1, self.num_ws, 1)


def modulated(x: Tensor, weight: Tensor, styles: Tensor, demodulate: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each sample [1, ...] with the convolution weights that its style makes (equations 1 to 3)."""
    for sample, style in zip(x.split(1), styles):
        own = weight * style[None, :, None, None]
        yield sample, own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt() if demodulate else own


class SynthesisLayer(Layer):
    def __init__(
        self, inputs: int, outputs: int, w: int, resolution: int, *, up: int = 1, taps: Taps = BINOMIAL,
        clamp: float | None = None, use_noise: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.resolution, self.up, self.use_noise, self.activation = resolution, up, use_noise, "lrelu"
        self.conv_clamp = clamp
        self.resample_filter = nn.Buffer(low_pass(taps))
        self.affine = FullyConnectedLayer(w, inputs, mean=1)
        self.store(outputs, inputs, 3, 3)
        if use_noise:
            self.noise_const = nn.Buffer(torch.randn(resolution, resolution))
            self.noise_strength = nn.Parameter(torch.randn(()) * 0.5)

    def forward(self, x: Tensor, w: Tensor, noise: str, gain: float = 1.0) -> Tensor:
        x = torch.cat([
            conv2d(doubled(sample, self.resample_filter, 1), own.flip(2, 3)) if self.up > 1
            else conv2d(sample, own, padding=1)
            for sample, own in modulated(x, self.weight, self.affine(w), True)
        ])  # fmt: skip
        if self.use_noise and noise == "const":
            x = x + self.noise_const * self.noise_strength
        return activate(x + self.bias[:, None, None], self.activation, gain, self.conv_clamp)


class ToRGBLayer(Layer):
    def __init__(self, inputs: int, outputs: int, w: int, clamp: float | None):
        super().__init__()
        self.conv_clamp, self.weight_gain = clamp, 1 / sqrt(inputs)
        self.affine = FullyConnectedLayer(w, inputs, mean=1)
        self.store(outputs, inputs, 1, 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * self.weight_gain
        x = torch.cat([conv2d(sample, own) for sample, own in modulated(x, self.weight, styles, False)])
        return activate(x + self.bias[:, None, None], "linear", 1.0, self.conv_clamp)


class SynthesisBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, w: int, resolution: int, channels: int, last: bool, options: dict):
        super().__init__()
        self.in_channels, self.resolution, self.is_last = inputs, resolution, last
        self.architecture = options["architecture"]
        clamp, taps, use_noise = options["clamp"], options["taps"], options["use_noise"]
        self.resample_filter = nn.Buffer(low_pass(taps))
        shared = {"clamp": clamp, "use_noise": use_noise}
        if inputs:
            self.conv0 = SynthesisLayer(inputs, outputs, w, resolution, up=2, taps=taps, **shared)
        else:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        self.conv1 = SynthesisLayer(outputs, outputs, w, resolution, **shared)
        if last or self.architecture == "skip":
            self.torgb = ToRGBLayer(outputs, channels, w, clamp)
        if inputs and self.architecture == "resnet":
            self.skip = Conv2dLayer(inputs, outputs, 1, "linear", up=2, taps=taps, bias=False)

    def forward(self, x: Tensor | None, image: Tensor | None, w: list[Tensor], noise: str) -> tuple[Tensor, Any, int]:
        used = 1
        if x is None:
            x = self.conv1(self.const.expand(len(w[0]), -1, -1, -1), w[0], noise)
        else:
            used, gain = 2, sqrt(0.5) if self.architecture == "resnet" else 1.0
            shortcut = self.skip(x, gain) if self.architecture == "resnet" else 0
            x = shortcut + self.conv1(self.conv0(x, w[0], noise), w[1], noise, gain)
        image = None if image is None else doubled(image, self.resample_filter)
        if self.is_last or self.architecture == "skip":
            drawn = self.torgb(x, w[used])
            image = drawn if image is None else image + drawn
        return x, image, used


class SynthesisNetwork(nn.Module):
    def __init__(
        self, w: int, resolution: int, channels: int, base: int, most: int, widths: tuple[int, ...], options: dict
    ):
        super().__init__()
        self.sizes = [2**i for i in range(2, int(log2(resolution)) + 1)]
        self._init_kwargs = {"channel_base": base, "channel_max": most}
        width = 0
        for i, at in enumerate(self.sizes):
            outputs = widths[i] if widths else min(base // at, most)
            self.add_module(f"b{at}", SynthesisBlock(width, outputs, w, at, channels, at == resolution, options))
            width = outputs

    def forward(self, ws: Tensor, noise: str) -> Tensor:
        x = image = None
        at = 0
        for resolution in self.sizes:
            x, image, used = self.get_submodule(f"b{resolution}")(x, image, list(ws.unbind(1))[at:], noise)
            at += used
        assert image is not None
        return image


class Generator(nn.Module):
    def __init__(
        self, resolution: int, *, z: int = 8, c: int = 0, w: int = 10, channels: int = 3, base: int = 256,
        most: int = 24, architecture: str = "skip", clamp: float | None = None, taps: Taps = BINOMIAL,
        use_noise: bool = True, mapping: dict | None = None, widths: tuple[int, ...] = (),
    ):  # fmt: skip
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.img_resolution, self.img_channels = z, c, w, resolution, channels
        options = {"architecture": architecture, "clamp": clamp, "taps": taps, "use_noise": use_noise}
        self.synthesis = SynthesisNetwork(w, resolution, channels, base, most, widths, options)
        self.num_ws = 2 * len(self.synthesis.sizes)
        self.mapping = MappingNetwork(z, c, w, self.num_ws, **{"layers": 2, **(mapping or {})})

    def styles(self, z: Tensor, c: Tensor | None, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        ws, reach = self.mapping(z, c), self.num_ws if cutoff is None else cutoff
        ws[:, :reach] = self.mapping.w_avg.lerp(ws[:, :reach], psi)
        return ws

    def forward(
        self, z: Tensor, c: Tensor | None = None, psi: float = 1.0, noise: str = "const", cutoff: int | None = None
    ) -> Tensor:
        return self.synthesis(self.styles(z, c, psi, cutoff), noise)


class DiscriminatorBlock(nn.Module):
    def __init__(self, inputs: int, middle: int, outputs: int, resolution: int, channels: int, options: dict):
        super().__init__()
        self.in_channels, self.resolution, self.architecture = inputs, resolution, options["architecture"]
        clamp, taps = options["clamp"], options["taps"]
        self.resample_filter = nn.Buffer(low_pass(taps))
        frozen = resolution == options["frozen"]
        if not inputs or self.architecture == "skip":
            self.fromrgb = Conv2dLayer(channels, middle, 1, clamp=clamp, frozen=frozen)
        self.conv0 = Conv2dLayer(middle, middle, 3, clamp=clamp, frozen=frozen)
        self.conv1 = Conv2dLayer(middle, outputs, 3, down=2, clamp=clamp, taps=taps, frozen=frozen)
        if self.architecture == "resnet":
            self.skip = Conv2dLayer(middle, outputs, 1, "linear", down=2, taps=taps, bias=False, frozen=frozen)

    def forward(self, x: Tensor | None, image: Tensor) -> tuple[Tensor, Tensor]:
        if x is None or self.architecture == "skip":
            seen = self.fromrgb(image)
            x = seen if x is None else x + seen
            image = smoothed(image, self.resample_filter)[:, :, ::2, ::2]
        if self.architecture == "resnet":
            return self.skip(x, sqrt(0.5)) + self.conv1(self.conv0(x), sqrt(0.5)), image
        return self.conv1(self.conv0(x)), image


class MinibatchStdLayer(nn.Module):
    def __init__(self, group_size: int | None, num_channels: int):
        super().__init__()
        self.group_size, self.num_channels = group_size, num_channels

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        group = n if self.group_size is None else min(self.group_size, n)
        planes = torch.empty(n, self.num_channels, *x.shape[2:])
        for i in range(n):
            members = x[i % (n // group) :: n // group]
            deviation = (members.var(0, unbiased=False) + 1e-8).sqrt()
            planes[i] = torch.stack([part.mean() for part in deviation.chunk(self.num_channels)])[:, None, None]
        return torch.cat([x, planes], 1)


class DiscriminatorEpilogue(nn.Module):
    def __init__(self, width: int, label: int, channels: int, group: int | None, extra: int, options: dict):
        super().__init__()
        self.cmap_dim, self.resolution, self.architecture = label, 4, options["architecture"]
        if self.architecture == "skip":
            self.fromrgb = Conv2dLayer(channels, width, 1)
        self.mbstd = MinibatchStdLayer(group, extra) if extra else None
        self.conv = Conv2dLayer(width + extra, width, 3, clamp=options["clamp"])
        self.fc = FullyConnectedLayer(width * 16, width, "lrelu")
        self.out = FullyConnectedLayer(width, label or 1)

    def forward(self, x: Tensor, image: Tensor, direction: Tensor | None) -> Tensor:
        x = x + self.fromrgb(image) if self.architecture == "skip" else x
        x = x if self.mbstd is None else self.mbstd(x)
        x = self.out(self.fc(self.conv(x).flatten(1)))
        return x if direction is None else (x * direction).sum(1, keepdim=True) / sqrt(self.cmap_dim)


class Discriminator(nn.Module):
    def __init__(
        self, resolution: int, *, c: int = 0, channels: int = 3, base: int = 256, most: int = 24,
        architecture: str = "resnet", clamp: float | None = None, taps: Taps = BINOMIAL, label: int | None = None,
        group: int | None = 4, extra: int = 1, frozen: int = 0, mapping: dict | None = None,
        widths: tuple[int, ...] = (),
    ):  # fmt: skip
        super().__init__()
        self.c_dim, self.img_resolution, self.img_channels = c, resolution, channels
        self._init_kwargs = {"channel_base": base, "channel_max": most}
        self.sizes = [resolution >> i for i in range(int(log2(resolution)) - 2)]
        widths = {at: widths[int(log2(at)) - 2] if widths else min(base // at, most) for at in (*self.sizes, 4)}
        options = {"architecture": architecture, "clamp": clamp, "taps": taps, "frozen": frozen}
        for at in self.sizes:
            inputs = widths[at] if at < resolution else 0
            block = DiscriminatorBlock(inputs, widths[at], widths[at // 2], at, channels, options)
            self.add_module(f"b{at}", block)
        label = (label or widths[4]) if c else 0
        if c:
            self.mapping = MappingNetwork(0, c, label, None, **{"layers": 2, **(mapping or {})})
        self.b4 = DiscriminatorEpilogue(widths[4], label, channels, group, extra, options)

    def forward(self, image: Tensor, c: Tensor | None = None) -> Tensor:
        x = None
        for at in self.sizes:
            x, image = self.get_submodule(f"b{at}")(x, image)
        return self.b4(x, image, self.mapping(None, c) if self.c_dim else None)


# Files.


class EasyDict(dict):
    """Stands for dnnlib.util.EasyDict in a pickle."""


class Network:
    """Stands for dnnlib.tflib.network.Network in a pickle."""

    def __init__(self, **state: Any):
        self.state = state

    def __getstate__(self) -> dict:
        return self.state


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise AssertionError("the embedded code of a pickle was run")


class _Pickler(pickle.Pickler):
    """Writes modules as upstream's persistence does: source code, the name of the class, and the attributes."""

    def reducer_override(self, instance: object) -> Any:
        if isinstance(instance, nn.Module):
            meta = EasyDict(
                type="class", version=6, module_src="raise AssertionError", class_name=type(instance).__name__,
                state=dict(vars(instance)),
            )  # fmt: skip
            return _reconstruct_persistent_obj, (meta,)
        return NotImplemented


@contextmanager
def upstream_modules() -> Iterator[None]:
    """Give the stand-ins the places that pickles name; only while writing, so that reading cannot import them."""
    places = {
        "dnnlib": (), "dnnlib.util": (EasyDict,), "dnnlib.tflib": (), "dnnlib.tflib.network": (Network,),
        "torch_utils": (), "torch_utils.persistence": (_reconstruct_persistent_obj,),
    }  # fmt: skip
    homes = {item: item.__module__ for items in places.values() for item in items}
    for name, items in places.items():
        sys.modules[name] = types.ModuleType(name)
        for item in items:
            setattr(sys.modules[name], item.__name__, item)
            item.__module__ = name
    try:
        yield
    finally:
        for name in places:
            del sys.modules[name]
        for item, home in homes.items():
            item.__module__ = home


def write_pickle(path: Path, content: object) -> Path:
    with upstream_modules(), path.open("wb") as file:
        _Pickler(file, protocol=4).dump(content)
    return path


def tensorflow_generator(generator: Generator, **arguments: object) -> Network:
    """The generator as TensorFlow's StyleGAN2 pickles hold it: the inverse of upstream's own conversion."""
    mapping, synthesis = generator.mapping, generator.synthesis
    inner: list[tuple[str, Tensor]] = []
    for i, at in enumerate(synthesis.sizes):
        block = synthesis.get_submodule(f"b{at}")
        place = f"{at}x{at}"
        if at == 4:
            inner.append(("4x4/Const/const", block.const[None]))
            inner += _modulated("4x4/Conv", block.conv1, "noise0")
        else:
            inner += _modulated(f"{place}/Conv0_up", block.conv0, f"noise{2 * i - 1}", turned=True)
            inner += _modulated(f"{place}/Conv1", block.conv1, f"noise{2 * i}")
        if hasattr(block, "skip"):
            inner.append((f"{place}/Skip/weight", block.skip.weight.permute(2, 3, 1, 0)))
        if hasattr(block, "torgb"):
            inner += _modulated(f"{place}/ToRGB", block.torgb, None)
    outer = [("LabelEmbed", mapping.embed)] if mapping.c_dim else []
    outer += [(f"Dense{i}", mapping.get_submodule(f"fc{i}")) for i in range(mapping.num_layers)]
    parts = {
        "synthesis": _network("G_synthesis", "G_synthesis_stylegan2", inner, arguments),
        "mapping": _network("G_mapping", "G_mapping", [pair for each in outer for pair in _dense(*each)], arguments),
    }
    own = [("lod", torch.zeros(())), ("dlatent_avg", mapping.w_avg)]
    return _network("G", "G_main", own, arguments, EasyDict(parts))


def tensorflow_discriminator(judge: Discriminator, function: str, **arguments: object) -> Network:
    found = []
    for at in judge.sizes:
        block = judge.get_submodule(f"b{at}")
        names = {"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip"}
        for ours, theirs in names.items():
            if hasattr(block, ours):
                found += _conv(f"{at}x{at}/{theirs}", getattr(block, ours))
    found += _conv("4x4/FromRGB", judge.b4.fromrgb) if hasattr(judge.b4, "fromrgb") else []
    found += _conv("4x4/Conv", judge.b4.conv) + _dense("4x4/Dense0", judge.b4.fc) + _dense("Output", judge.b4.out)
    if judge.c_dim:
        found += _dense("LabelEmbed", judge.mapping.embed)
        for i in range(judge.mapping.num_layers):
            found += _dense(f"Mapping{i}", judge.mapping.get_submodule(f"fc{i}"))
    return _network("D", function, found, arguments)


def _network(name: str, function: str, variables: list, arguments: dict, parts: EasyDict | None = None) -> Network:
    arrays = [(name, value.detach().numpy() if value.ndim else value.detach().numpy()[()]) for name, value in variables]
    return Network(
        version=4, name=name, static_kwargs=arguments, components=parts or EasyDict(), build_module_src="raise",
        build_func_name=function, variables=arrays,
    )  # fmt: skip


def _conv(name: str, layer: Conv2dLayer) -> list[tuple[str, Tensor]]:
    found = [(f"{name}/weight", layer.weight.permute(2, 3, 1, 0))]
    return found if layer.bias is None else [*found, (f"{name}/bias", layer.bias)]


def _dense(name: str, layer: FullyConnectedLayer) -> list[tuple[str, Tensor]]:
    return [(f"{name}/weight", layer.weight.T), (f"{name}/bias", layer.bias)]


def _modulated(name: str, layer: Any, noise: str | None, turned: bool = False) -> list[tuple[str, Tensor]]:
    weight = layer.weight.flip(2, 3) if turned else layer.weight
    found = [
        (f"{name}/weight", weight.permute(2, 3, 1, 0)),
        (f"{name}/mod_weight", layer.affine.weight.T),
        (f"{name}/mod_bias", layer.affine.bias - 1),
        (f"{name}/bias", layer.bias),
    ]
    if noise is not None and layer.use_noise:
        found += [(noise, layer.noise_const[None, None]), (f"{name}/noise_strength", layer.noise_strength)]
    return found


def rosinality_generator(generator: Generator) -> dict[str, Tensor]:
    """The state dict of the same generator in rosinality's names and shapes; architecture "skip", no labels."""
    state = {}
    for i in range(generator.mapping.num_layers):
        layer = generator.mapping.get_submodule(f"fc{i}")
        state |= {f"style.{i + 1}.weight": layer.weight, f"style.{i + 1}.bias": layer.bias}
    for k, at in enumerate(generator.synthesis.sizes):
        block = generator.synthesis.get_submodule(f"b{at}")
        if k == 0:
            state["input.input"] = block.const[None]
            state |= _styled("conv1", block.conv1, 0)
        else:
            state |= _styled(f"convs.{2 * k - 2}", block.conv0, 2 * k - 1)
            state |= _styled(f"convs.{2 * k - 1}", block.conv1, 2 * k)
            state[f"convs.{2 * k - 2}.conv.blur.kernel"] = 4 * block.resample_filter
            state[f"to_rgbs.{k - 1}.upsample.kernel"] = 4 * block.resample_filter
        name = f"to_rgbs.{k - 1}" if k else "to_rgb1"
        state |= _rosinality_conv(f"{name}.conv", block.torgb)
        state[f"{name}.bias"] = block.torgb.bias.reshape(1, -1, 1, 1)
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _rosinality_conv(name: str, layer: Any) -> dict[str, Tensor]:
    return {
        f"{name}.weight": layer.weight[None],
        f"{name}.modulation.weight": layer.affine.weight,
        f"{name}.modulation.bias": layer.affine.bias,
    }


def _styled(name: str, layer: SynthesisLayer, noise: int) -> dict[str, Tensor]:
    return {
        **_rosinality_conv(f"{name}.conv", layer),
        f"{name}.noise.weight": layer.noise_strength[None],
        f"{name}.activate.bias": layer.bias,
        f"noises.noise_{noise}": layer.noise_const[None, None],
    }


def rosinality_discriminator(judge: Discriminator) -> dict[str, Tensor]:
    """The state dict of the same discriminator in rosinality's names; architecture "resnet", no labels."""
    top = judge.get_submodule(f"b{judge.sizes[0]}").fromrgb
    state = {"convs.0.0.weight": top.weight, "convs.0.1.bias": top.bias}
    for k, at in enumerate(judge.sizes):
        block, name = judge.get_submodule(f"b{at}"), f"convs.{k + 1}"
        state |= {f"{name}.conv1.0.weight": block.conv0.weight, f"{name}.conv1.1.bias": block.conv0.bias}
        state |= {f"{name}.conv2.1.weight": block.conv1.weight, f"{name}.conv2.2.bias": block.conv1.bias}
        state[f"{name}.skip.1.weight"] = block.skip.weight
        state |= {f"{name}.{part}.0.kernel": block.resample_filter for part in ("conv2", "skip")}
    state |= {"final_conv.0.weight": judge.b4.conv.weight, "final_conv.1.bias": judge.b4.conv.bias}
    for i, layer in enumerate((judge.b4.fc, judge.b4.out)):
        state |= {f"final_linear.{i}.weight": layer.weight, f"final_linear.{i}.bias": layer.bias}
    return {name: tensor.detach().clone() for name, tensor in state.items()}
