"""The layers of StyleGAN2 (Karras et al., 2020, arXiv:1912.04958): equalised, modulated, anti-aliased."""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, linear

SLOPE = 0.2               # of leaky ReLU
ROOT_TWO = sqrt(2.0)      # keeps the variance of a leaky ReLU's output near that of its input


@lru_cache(maxsize=64)
def binomial(channels: int, gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the separable filter [1, 3, 3, 1] as depthwise weights [channels, 1, 4, 4] whose sum is `gain`."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(row, row)
    return (kernel / kernel.sum() * gain).to(device, dtype).expand(channels, 1, 4, 4).contiguous()


class _Filter(torch.autograd.Function):
    """The low-pass filter as a linear operator with its own adjoint.

    Autograd's double backward of a grouped convolution also computes the gradient of the kernel, group by group,
    which nobody needs here; R1 on a CPU is several times faster this way.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int, stride: int, gain: float, up: bool) -> Tensor:
        ctx.setting = padding, stride, gain, up
        kernel = binomial(x.shape[1], gain, x.dtype, x.device)
        if up:
            return conv2d(spread(x), kernel, groups=x.shape[1])
        return conv2d(x, kernel, padding=padding, stride=stride, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        padding, stride, gain, up = ctx.setting
        gradient = gradients[0]
        if stride == 1:      # the kernel is symmetric: the adjoint of a padded filter is a filter with the rest padded
            return filtered(gradient, 3 - padding, 1, gain, up), None, None, None, None
        return filtered(gradient, padding, stride, gain, not up), None, None, None, None


def spread(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2H + 3, 2W + 3]: zeros between and around, as the filter needs them.

    Followed by a plain convolution this is what a transposed one computes; those are slow on CPUs when grouped.
    """
    n, c, h, w = x.shape
    out = x.new_zeros(n, 2 * h + 3, 2 * w + 3, c).permute(0, 3, 1, 2)      # channels_last
    out[:, :, 2 : 2 + 2 * h : 2, 2 : 2 + 2 * w : 2] = x
    return out


def filtered(x: Tensor, padding: int, stride: int, gain: float, up: bool) -> Tensor:
    out: Tensor = _Filter.apply(x, padding, stride, gain, up)
    return out


def blur(x: Tensor, padding: int, gain: float = 1.0, stride: int = 1) -> Tensor:
    """Low-pass filter each channel; [N, C, H, W] -> [N, C, H + 2 padding - 3, ...] for stride 1."""
    return filtered(x, padding, stride, gain, False)


def upsample(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2H, 2W]: zeros between, then the low-pass filter with gain 4."""
    return filtered(x, 1, 2, 4.0, True)


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
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
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
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale, self.kernel = 1 / sqrt(inputs * kernel**2), kernel
        self.active, self.down, self.up, self.clamp = active, down, up, clamp

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        weight = self.weight * self.scale
        if self.down and self.kernel == 1:
            x = conv2d(blur(x, 1, stride=2), weight)
        elif self.down:
            x = conv2d(blur(x, 1 + self.kernel // 2), weight, stride=2)
        else:
            x = conv2d(x, weight, padding=self.kernel // 2)
        if self.up:
            x = upsample(x)
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
        self, inputs: int, outputs: int, kernel: int, styles: int, *, up: bool = False, demodulate: bool = True
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.affine = Dense(styles, inputs, bias=1.0)
        self.scale = 1.0 if demodulate else 1 / sqrt(inputs * kernel**2)
        self.kernel, self.up, self.demodulate = kernel, up, demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style = self.affine(w) * self.scale
        y = x * style[:, :, None, None].to(x.dtype)
        if self.up:
            y = blur(conv_transpose2d(y, self.weight.transpose(0, 1), stride=2), 1, gain=4.0)
        else:
            y = conv2d(y, self.weight, padding=self.kernel // 2)
        if self.demodulate:
            norm = wide(style).square() @ wide(self.weight).square().sum((2, 3)).T
            y = y * (norm + 1e-8).rsqrt()[:, :, None, None].to(y.dtype)
        out: Tensor = y
        return out


def minibatch_stddev(x: Tensor, group: int, channels: int) -> Tensor:
    """Append the standard deviation over groups of samples as `channels` further channels (Karras 2018, section 3).

    Sample n is grouped with n + N/group, n + 2N/group, ...; a smaller batch is one group.
    """
    n, c, h, w = x.shape
    size = group if n % group == 0 else n
    y = wide(x).reshape(size, n // size, channels, c // channels, h, w)
    deviation = (y.var(0, unbiased=False) + 1e-8).sqrt().mean(dim=(2, 3, 4))
    planes = deviation.repeat(size, 1)[:, :, None, None].expand(-1, -1, h, w)
    return torch.cat([x, planes.to(x.dtype)], dim=1)
