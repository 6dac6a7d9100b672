"""Low-pass filters by the Kaiser window (Karras et al., 2021, appendix C), in float64."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from zoo_stylegan.alias_free.geometry import LowPass

NEGLIGIBLE = 1e-7      # of a filter's largest eigenvalue: below float32's resolution


def design(filter: LowPass) -> Tensor:
    """Return the filter's taps: [taps] for use in both directions, or [taps, taps] if it is radial; their sum is 1."""
    if filter.taps == 1:
        return torch.ones(1, dtype=torch.float64, device="cpu")
    window = kaiser(filter.taps, filter.width / (filter.rate / 2))
    place = (torch.arange(filter.taps, dtype=torch.float64, device="cpu") - (filter.taps - 1) / 2) / filter.rate
    if filter.radial:
        ideal = jinc(torch.hypot(place[:, None], place), filter.cutoff)
        window = torch.outer(window, window)
    else:
        ideal = torch.sinc(2 * filter.cutoff * place)
    taps = ideal * window
    return taps / taps.sum()


def kaiser(taps: int, width: float) -> Tensor:
    """Return Kaiser's window [taps] for a transition band of `width`, 1 being half the sampling rate.

    The attenuation that so many taps reach, and the window's shape for it, are Kaiser's fits (1974).
    """
    attenuation = 2.285 * (taps - 1) * pi * width + 7.95
    beta = 0.0
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    place = torch.linspace(-1, 1, taps, dtype=torch.float64, device="cpu")
    shape = torch.special.i0(beta * (1 - place.square()).clamp_min(0).sqrt())
    window: Tensor = shape / torch.special.i0(torch.tensor(beta, dtype=torch.float64, device="cpu"))
    return window


def jinc(radius: Tensor, cutoff: float) -> Tensor:
    """Return the ideal radial low-pass filter J1(2 pi cutoff r) / r, whose spectrum is a disc, without its constant."""
    at = radius.clamp_min(1e-12 / cutoff)      # the limit at 0 is pi times the cutoff
    filter: Tensor = torch.special.bessel_j1(2 * pi * cutoff * at) / at
    return filter


def rows(taps: Tensor) -> tuple[Tensor, Tensor]:
    """Return a filter as a sum of separable ones: ([K, taps] along columns, [K, taps] along rows).

    A radial filter is a symmetric matrix, whose eigenvalues fall so fast that three to five of its eigenvectors are
    all that float32 can tell: the sum of so few separable filters costs less than the square of taps.
    """
    if taps.ndim == 1:
        return taps[None], taps[None]
    values, vectors = torch.linalg.eigh(taps)
    kept = values.abs() > NEGLIGIBLE * values.abs().max()
    return vectors.T[kept], (vectors * values).T[kept]
