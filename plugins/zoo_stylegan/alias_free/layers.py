"""The layers of StyleGAN3's synthesis (Karras et al., 2021, arXiv:2106.12423, figure 4)."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from zoo_stylegan.alias_free.filtering import filtered_leaky_relu
from zoo_stylegan.alias_free.geometry import Resampling, Signal
from zoo_stylegan.layers import Dense, wide

PLACE = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]      # where the image lies in the plane: unmoved


def waves(signal: Signal) -> tuple[Tensor, Tensor]:
    """Draw frequencies [channels, 2], uniform in the disc up to the cutoff, and phases [channels]; on the CPU."""
    angle, radius, phases = torch.rand(3, signal.channels, device="cpu")
    radius = signal.cutoff * radius.sqrt()
    return torch.stack([radius * (2 * pi * angle).cos(), radius * (2 * pi * angle).sin()], 1), phases - 0.5


class FourierFeatures(nn.Module):
    """w [N, w] -> [N, channels, size, size]: waves across an infinite plane, placed as w says, then mixed."""

    def __init__(self, w: int, signal: Signal):
        super().__init__()
        freqs, phases = waves(signal)
        self.freqs = nn.Buffer(torch.empty(signal.channels, 2).copy_(freqs))
        self.phases = nn.Buffer(torch.empty(signal.channels).copy_(phases))
        self.transform = nn.Buffer(torch.tensor(PLACE))      # the user's: image to plane
        self.weight = nn.Parameter(torch.randn(signal.channels, signal.channels))
        self.affine = Dense(w, 4)                      # cosine and sine of a rotation, a translation
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0, 0, 0]))
        self.signal = signal

    def forward(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        """Return features; `transform` [3, 3] is applied to places in the image before the layer's own one."""
        with torch.autocast(w.device.type, enabled=False):      # phases need their digits
            return self._waves(*self._placed(wide(w), transform))

    def _placed(self, w: Tensor, transform: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return frequencies [N, channels, 2] and phases [N, channels] (appendix F).

        A wave at R (T (user p)) is a wave at p whose frequencies are turned, and whose phase holds what is shifted.
        """
        user = self.transform if transform is None else self.transform @ transform
        cosine, sine, right, down = self.affine(w).unbind(1)
        length = (cosine.square() + sine.square()).sqrt()
        cosine, sine = cosine / length, sine / length
        rotation = torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
        shift = torch.stack([right, down], 1)[:, :, None] / length[:, None, None]
        matrix = rotation @ (user[:2] - shift * user[2])
        return self.freqs @ matrix[:, :, :2], self.phases + (self.freqs @ matrix[:, :, 2:]).squeeze(2)

    def _waves(self, frequencies: Tensor, phases: Tensor) -> Tensor:
        # A transform by the user may scale waves out of the band: they fade before they alias.
        room = self.signal.rate / 2 - self.signal.cutoff
        amplitudes = (1 - (frequencies.square().sum(2).sqrt() - self.signal.cutoff) / room).clamp(0, 1)
        place = torch.arange(self.signal.size, dtype=phases.dtype, device=phases.device)
        place = (place + 0.5 - self.signal.size / 2) / self.signal.rate      # image widths from its middle
        along = frequencies[:, :, :1] * place
        across = frequencies[:, :, 1:] * place + phases[:, :, None]
        waves = ((along[:, :, None, :] + across[:, :, :, None]) * (2 * pi)).sin()
        weight = self.weight * amplitudes[:, None] / sqrt(self.signal.channels)
        return (weight @ waves.flatten(2)).view(waves.shape)


class SynthesisLayer(nn.Module):
    """Modulated convolution, then a leaky ReLU between two filters; without filters, the layer that makes colours.

    [N, inputs, size, size] -> [N, outputs, size', size'], sizes as the resampling says.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w: int,
        *,
        kernel: int,
        resampling: Resampling | None,      # None: neither filters, activation nor demodulation
        clamp: float | None,
    ):
        super().__init__()
        self.affine = Dense(w, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.magnitude = nn.Buffer(torch.ones(()))      # running mean square of the input, which is scaled back by it
        self.resampling, self.clamp = resampling, clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles, scales = self._modulation(self.affine(w))
        x = modulated(x, self.weight, styles, scales, self.bias)
        if self.resampling is not None:
            return filtered_leaky_relu(x, self.resampling)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)

    def _modulation(self, styles: Tensor) -> tuple[Tensor, Tensor]:
        """Return what scales inputs [N, inputs] and outputs [N, outputs], so that outputs have unit variance.

        Weights and styles are brought to unit size first, so that the small constant is small beside them.
        """
        gain = self.magnitude.rsqrt()
        if self.resampling is None:
            return styles * (gain / sqrt(self.weight[0].numel())), styles.new_ones(1, len(self.weight))
        styles, squares = wide(styles), wide(self.weight).square().sum((2, 3))
        styles = styles * styles.square().mean(1, keepdim=True).rsqrt()
        size = squares.sum(1).mul(1 / self.weight[0].numel()).rsqrt()
        norm = (styles.square() @ squares.T) * size.square()
        return styles * gain, (norm + 1e-8).rsqrt() * size


def modulated(x: Tensor, weight: Tensor, styles: Tensor, scales: Tensor, bias: Tensor) -> Tensor:
    """Return the convolution of x [N, I, h, w] times styles [N, I], times scales [N, O], plus bias [O].

    The image grows by the kernel's size less one: what it lets in from the sides is what lies there.
    """
    n, kernel = len(x), weight.shape[-1]
    if kernel == 1:      # a matrix for each sample, which is small, instead of two passes over its image
        matrices = weight.flatten(1) * styles[:, None] * scales[:, :, None]
        y = torch.baddbmm(bias[:, None].expand(n, -1, 1).to(x.dtype), matrices.to(x.dtype), x.flatten(2))
        return y.view(n, -1, *x.shape[2:])
    y = conv2d(x * styles[:, :, None, None], weight, padding=kernel - 1)
    return torch.addcmul(bias[:, None, None], y, scales[:, :, None, None])
