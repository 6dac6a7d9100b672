"""The layers of StyleGAN2 (Karras et al., 2020, arXiv:1912.04958): equalised, modulated, anti-aliased."""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, linear

from zoo.minibatch_std import deviation
from zoo_stylegan.config import BINOMIAL

SLOPE = 0.2               # of leaky ReLU
ROOT_TWO = sqrt(2.0)      # keeps the variance of a leaky ReLU's output near that of its input


@lru_cache(maxsize=64)
def separable(
    taps: tuple[float, ...], channels: int, gain: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the filter of these taps in both directions, as depthwise weights [channels, 1, L, L] of sum `gain`."""
    row = torch.tensor(taps)
    kernel = torch.outer(row, row)
    return (kernel / kernel.sum() * gain).to(device, dtype).expand(channels, 1, -1, -1).contiguous()


def reach(taps: tuple[float, ...]) -> int:
    """Return the padding with which a filter of L taps halves an image exactly: L/2 - 1."""
    return len(taps) // 2 - 1


class _Filter(torch.autograd.Function):
    """The low-pass filter as a linear operator with its own adjoint.

    Autograd's double backward of a grouped convolution also computes the gradient of the kernel, group by group,
    which nobody needs here; R1 on a CPU is several times faster this way.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, padding: int, stride: int, gain: float, up: bool, taps: tuple[float, ...]
    ) -> Tensor:
        ctx.setting = padding, stride, gain, up, taps
        kernel = separable(taps, x.shape[1], gain, x.dtype, x.device)
        if up:
            return conv2d(spread(x, len(taps)), kernel, groups=x.shape[1])
        return conv2d(x, kernel, padding=padding, stride=stride, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        padding, stride, gain, up, taps = ctx.setting
        if stride == 1:      # the kernel is symmetric: the adjoint of a padded filter is a filter with the rest padded
            back = filtered(gradients[0], len(taps) - 1 - padding, 1, gain, up, taps)
        else:
            back = filtered(gradients[0], padding, stride, gain, not up, taps)
        return back, None, None, None, None, None


def spread(x: Tensor, length: int = 4) -> Tensor:
    """[N, C, H, W] -> [N, C, 2H + L - 1, 2W + L - 1]: zeros between and around, as a filter of L taps needs them.

    Followed by a plain convolution this is what a transposed one computes; those are slow on CPUs when grouped.
    """
    n, c, h, w = x.shape
    more, first = length - 1, length // 2
    out = x.new_zeros(n, 2 * h + more, 2 * w + more, c).permute(0, 3, 1, 2)      # channels_last
    out[:, :, first : first + 2 * h : 2, first : first + 2 * w : 2] = x
    return out


def filtered(x: Tensor, padding: int, stride: int, gain: float, up: bool, taps: tuple[float, ...]) -> Tensor:
    out: Tensor = _Filter.apply(x, padding, stride, gain, up, taps)
    return out


def blur(
    x: Tensor, padding: int, gain: float = 1.0, stride: int = 1, taps: tuple[float, ...] = BINOMIAL
) -> Tensor:
    """Low-pass filter each channel; [N, C, H, W] -> [N, C, H + 2 padding + 1 - L, ...] for stride 1 and L taps."""
    return filtered(x, padding, stride, gain, False, taps)


def upsample(x: Tensor, taps: tuple[float, ...] = BINOMIAL) -> Tensor:
    """[N, C, H, W] -> [N, C, 2H, 2W]: zeros between, then the low-pass filter with gain 4."""
    return filtered(x, reach(taps), 2, 4.0, True, taps)


def downsample(x: Tensor, taps: tuple[float, ...] = BINOMIAL) -> Tensor:
    """[N, C, H, W] -> [N, C, H/2, W/2]: the low-pass filter, then every other pixel."""
    return blur(x, reach(taps), stride=2, taps=taps)


def wide(x: Tensor) -> Tensor:
    """Return x in float32 at least: what is squared or summed here overflows in float16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def activate(x: Tensor, gain: float = 1.0, clamp: float | None = None) -> Tensor:
    """Leaky ReLU scaled by sqrt(2) gain, then clamped to +-clamp gain (which keeps float16 finite)."""
    x = leaky_relu(x, SLOPE) * (ROOT_TWO * gain)
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


class Dense(nn.Module):
    """Fully connected layer with equalised learning rate: weights are N(0, 1) and scaled when used."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: float = 0.0,          # initial bias
        rate: float = 1.0,          # learning rate multiplier
        active: bool = False,       # leaky ReLU after it
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs).div_(rate))
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate, self.active = rate / sqrt(inputs), rate, active

    def forward(self, x: Tensor) -> Tensor:
        x = linear(x, self.weight * self.scale, self.bias * self.rate)
        return activate(x) if self.active else x


class Conv(nn.Module):
    """Convolution with equalised learning rate, optionally halving the image after the low-pass filter."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        bias: bool = True,
        active: bool = True,            # leaky ReLU after it
        down: bool = False,             # halve height and width
        up: bool = False,               # double them; for 1x1 kernels
        clamp: float | None = None,
        taps: tuple[float, ...] = BINOMIAL,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale, self.kernel, self.taps = 1 / sqrt(inputs * kernel**2), kernel, taps
        self.active, self.down, self.up, self.clamp = active, down, up, clamp

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        weight = self.weight * self.scale
        if self.down and self.kernel == 1:
            x = conv2d(downsample(x, self.taps), weight)
        elif self.down:
            x = conv2d(blur(x, reach(self.taps) + self.kernel // 2, taps=self.taps), weight, stride=2)
        else:
            x = conv2d(x, weight, padding=self.kernel // 2)
        if self.up:
            x = upsample(x, self.taps)
        if self.bias is not None:
            x = x + self.bias[:, None, None].to(x.dtype)
        if self.active:
            return activate(x, gain, self.clamp)
        return x * gain if self.clamp is None else (x * gain).clamp(-self.clamp * gain, self.clamp * gain)


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style, and whose output is scaled back to unit variance.

    Equations 1 to 3. Activations are scaled instead of weights, and the norm of the modulated weight is
    ``s^2 @ sum(W^2)``: the per-sample weight tensor [N, O, I, k, k] is never built.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        styles: int,
        *,
        up: bool = False,
        demodulate: bool = True,
        taps: tuple[float, ...] = BINOMIAL,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.affine = Dense(styles, inputs, bias=1.0)
        self.scale = 1.0 if demodulate else 1 / sqrt(inputs * kernel**2)
        self.kernel, self.up, self.demodulate, self.taps = kernel, up, demodulate, taps

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w) * self.scale
        y = x * style[:, :, None, None].to(x.dtype)
        if self.up:
            y = conv_transpose2d(y, self.weight.transpose(0, 1), stride=2)
            y = blur(y, reach(self.taps), gain=4.0, taps=self.taps)
        else:
            y = conv2d(y, self.weight, padding=self.kernel // 2)
        if self.demodulate:
            norm = wide(style).square() @ wide(self.weight).square().sum((2, 3)).T
            y = y * (norm + 1e-8).rsqrt()[:, :, None, None].to(y.dtype)
        out: Tensor = y
        return out


def minibatch_stddev(x: Tensor, group: int | None, channels: int) -> Tensor:
    """Append the standard deviation over groups of samples as `channels` further channels (Karras 2018, section 3).

    Sample n is grouped with n + N/group, n + 2N/group, ...; a smaller batch is one group, and any without `group`.
    """
    n, c, h, w = x.shape
    found = deviation(x, group).reshape(-1, channels, c // channels, h, w).mean(dim=(2, 3, 4))
    planes = found.repeat(n // len(found), 1)[:, :, None, None].expand(-1, -1, h, w)
    return torch.cat([x, planes.to(x.dtype)], dim=1)
