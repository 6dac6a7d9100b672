"""Keyed chance: each random number is a function of (seed, step, phase) and the place in the batch."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def key(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on every part and on their order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Noise:
    """A stream of random tensors that is the same however the batch is shared out.

    Each draw is made for the whole batch and this share takes its rows, so one process with a batch of 32 and two with
    16 each see the same numbers. Shares are interleaved (rows ``share::shares``), which keeps the groups of
    minibatch standard deviation whole.
    """

    def __init__(self, seed: int, *, share: int = 0, shares: int = 1, device: torch.device | str = "cpu"):
        self.share, self.shares, self.device = share, shares, torch.device(device)
        self._generator = torch.Generator(self.device).manual_seed(seed)

    def normal(self, n: int, *shape: int) -> Tensor:
        """Return [n, *shape] standard normal numbers: this share's rows."""
        whole = torch.randn(n * self.shares, *shape, generator=self._generator, device=self.device)
        return whole[self.share :: self.shares]

    def uniform(self, n: int, *shape: int) -> Tensor:
        """Return [n, *shape] numbers uniform in [0, 1): this share's rows."""
        whole = torch.rand(n * self.shares, *shape, generator=self._generator, device=self.device)
        return whole[self.share :: self.shares]

    def integers(self, high: int, n: int, *shape: int) -> Tensor:
        """Return [n, *shape] integers uniform in [0, high): this share's rows."""
        whole = torch.randint(high, (n * self.shares, *shape), generator=self._generator, device=self.device)
        return whole[self.share :: self.shares]

    def number(self) -> float:
        """Return one number uniform in [0, 1), the same for every share of the batch."""
        return float(torch.rand((), generator=self._generator, device=self.device))
