"""Which frequencies each layer of StyleGAN3 carries, and how it is sampled (Karras et al., 2021, section 3, figure 4).

Frequencies are in cycles per image: a signal of `rate` samples along the image holds frequencies up to rate / 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2


@dataclass(frozen=True)
class Signal:
    """What leaves a layer: a band-limited signal and how it is sampled."""

    rate: int              # samples along the image
    size: int              # samples along the image and its margins
    cutoff: float          # highest frequency
    half_width: float      # of the transition from what passes to what is stopped, around the cutoff
    channels: int


@dataclass(frozen=True)
class LowPass:
    """A low-pass filter to be designed; with one tap it lets everything through."""

    taps: int
    cutoff: float
    width: float           # of the transition band
    rate: int              # samples along the image where it works
    radial: bool = False   # as a function of the radius, instead of both directions apart


@dataclass(frozen=True)
class Resampling:
    """A non-linearity between an up-sampling and a down-sampling filter: [inputs, inputs] -> [outputs, outputs]."""

    inputs: int
    outputs: int
    up: int                # factors
    down: int
    up_filter: LowPass
    down_filter: LowPass
    clamp: float | None

    @property
    def before(self) -> int:
        """Zeros before the first sample once up-sampled; negative: so many are left out.

        What is missing from the sizes, both filters counted, is shared between the sides, so that samples stay
        centres of pixels whatever the factor.
        """
        wanted = (self.outputs - 1) * self.down + 1
        over = wanted - self.inputs * self.up + self.up_filter.taps + self.down_filter.taps - 2
        return (over + self.up) // 2


def progression(
    *, resolution: int, channels: int, layers: int, critical: int, first_cutoff: float, first_stopband: float,
    last_stopband: float, margin: int, channel_base: int, channel_max: int,
) -> list[Signal]:  # fmt: skip
    """Return what leaves each of `layers` layers and the one of colours.

    Cutoffs and stopbands grow geometrically up to the critically sampled layers, which all have the image's own.
    """
    last = resolution / 2
    signals = []
    for index in range(layers + 1):
        share = min(index / (layers - critical), 1)
        cutoff = first_cutoff * (last / first_cutoff) ** share
        stopband = first_stopband * (last * last_stopband / first_stopband) ** share
        rate = 2 ** ceil(log2(min(2 * stopband, resolution)))
        size = rate + 2 * margin if index < layers - 1 else resolution
        width = channels if index == layers else round(min(channel_base / 2 / cutoff, channel_max))
        signals.append(Signal(rate, size, cutoff, max(stopband, rate / 2) - cutoff, width))
    return signals


def resampling(
    before: Signal,
    after: Signal,
    *,
    kernel: int,           # of the convolution in front, which makes the signal larger
    taps: int,             # of a filter, pixels of the lower resolution
    upsampling: int,       # resolution of the non-linearity, times the higher one of both signals
    radial: bool,
    clamp: float | None,
) -> Resampling:
    """Return how a layer gets from one signal to the next."""
    rate = max(before.rate, after.rate) * upsampling
    up, down = rate // before.rate, rate // after.rate
    return Resampling(
        before.size + kernel - 1,
        after.size,
        up,
        down,
        LowPass(taps * up if up > 1 else 1, before.cutoff, 2 * before.half_width, rate),
        LowPass(taps * down if down > 1 else 1, after.cutoff, 2 * after.half_width, rate, radial),
        clamp,
    )
