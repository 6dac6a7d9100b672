"""A prior that learns where the posteriors are: affine couplings between a standard normal and the latents."""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

REACH = 2.0          # largest change of a log scale in one coupling


class Coupling(nn.Module):
    """One half of the numbers scales and shifts the other, which is undone in one step (Dinh et al., 2017, eq. 7)."""

    def __init__(self, size: int, classes: int, width: int):
        super().__init__()
        self.kept = size - size // 2
        self.inner = nn.Linear(self.kept + classes, width)
        self.hidden = nn.Linear(width, width)
        self.outer = nn.Linear(width, 2 * (size // 2))
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, kept: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the log scale and the shift, both [N, size // 2], that the kept half [N, kept] decides on."""
        x = kept if labels is None else torch.cat([kept, labels], 1)
        x = self.outer(F.silu(self.hidden(F.silu(self.inner(x))))).float()
        log_scale, shift = x.chunk(2, 1)
        return REACH * (log_scale / REACH).tanh(), shift


class Flow(nn.Module):
    """Standard normal z [N, size] and class rows -> latents [N, size], and the density of latents (Dinh et al., 2017).

    As the prior of a VAE: Chen et al., 2017, arXiv:1611.02731, section 3.2. It starts as the identity.
    """

    def __init__(self, size: int, classes: int, width: int, steps: int):
        super().__init__()
        self.steps = nn.ModuleList(Coupling(size, classes, width) for _ in range(steps))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return latents, the couplings in reverse."""
        for step in reversed(self.steps):
            kept, moved = self._halves(z.flip(1))
            log_scale, shift = step(kept, labels)
            z = torch.cat([kept, moved * log_scale.exp() + shift], 1)
        return z

    def log_density(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return log p(latents | labels) in nats [N] (Dinh et al., 2017, eq. 3)."""
        total = torch.zeros(len(latents), device=latents.device)
        x = latents
        for step in self.steps:
            kept, moved = self._halves(x)
            log_scale, shift = step(kept, labels)
            total = total - log_scale.sum(1)
            x = torch.cat([kept, (moved - shift) * (-log_scale).exp()], 1).flip(1)
        return total - 0.5 * (x.square() + log(2 * pi)).sum(1)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = x.shape[1] - x.shape[1] // 2
        return x[:, :kept], x[:, kept:]
