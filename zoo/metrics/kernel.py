"""Maximum mean discrepancy of two sets of features, under a kernel.

KID, with a polynomial: Binkowski et al., 2018, arXiv:1801.01401.
CMMD, with a Gaussian, named after the CLIP features of its paper: Jayasumana et al., 2024, arXiv:2401.09603.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.metrics.metric import SEEDED, Metric, matched

ROWS = 2048            # rows of the kernel matrix in memory at once
SIGMA = 10.0           # width of CMMD's kernel
CMMD_SCALE = 1000      # for readable numbers, as in the paper
SMALLEST = 1e-12       # length of a feature vector below which it has no direction

Kernel = Callable[[Tensor, Tensor], Tensor]      # (x [N, d], y [M, d]) -> [N, M]


def kernel_distance(
    real: Tensor, fake: Tensor, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Return the squared maximum mean discrepancy of real [N, d] and fake [M, d] under k(x, y) = (x.y / d + 1)^3.

    ``kid`` is the unbiased estimate from all pairs of images, and ``kid_std_error`` its standard error over the choice
    of images (delete-one jackknife of both sides). It may be slightly below zero for equal distributions. Where both
    sides hold `subset_size` images, ``kid_subset_mean`` and ``kid_subset_std`` are the mean and the standard deviation
    over `subsets` random subsets, which is how papers state it; its expectation is the same, its noise is larger.

    Raises:
        EvaluationError: fewer than 3 images on a side, other shapes, or values that are not finite.
    """
    real, fake = matched(real, fake, least=3)
    sums = _Sums.of(real, fake, polynomial)
    values = {"kid": float(sums.estimate()), "kid_std_error": float(sums.std_error())}
    if min(len(real), len(fake)) >= subset_size:
        chance = torch.Generator().manual_seed(seed % 2**64)
        drawn = torch.stack([_subset(real, fake, subset_size, chance) for _ in range(subsets)])
        values |= {"kid_subset_mean": float(drawn.mean()), "kid_subset_std": float(drawn.std(correction=0))}
    return values


def clip_distance(real: Tensor, fake: Tensor) -> dict[str, float]:
    """Return {"cmmd", "cmmd_unbiased", "cmmd_std_error"} of real [N, d] and fake [M, d] features.

    All are 1000 times the squared maximum mean discrepancy of features of length 1 under
    k(x, y) = exp(-|x - y|^2 / (2 * 10^2)). ``cmmd`` also counts each image with itself, as the authors' program does
    and papers state it, so it is above 0 for equal distributions: by 10 / N + 10 / M for features at right angles.
    ``cmmd_unbiased`` leaves those pairs out, as the paper's formula does; ``cmmd_std_error`` is its standard error over
    the choice of images (jackknife).

    Raises:
        EvaluationError: fewer than 3 images on a side, other shapes, or values that are not finite.
    """
    real, fake = matched(real, fake, least=3)
    sums = _Sums.of(_directions(real), _directions(fake), gaussian)
    biased = sums.estimate(own=1.0)
    scaled = {"cmmd": biased, "cmmd_unbiased": sums.estimate(), "cmmd_std_error": sums.std_error()}
    return {name: CMMD_SCALE * float(value) for name, value in scaled.items()}


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """Return [N, M] values (x.y / d + 1)^3 of x [N, d] and y [M, d]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(x: Tensor, y: Tensor) -> Tensor:
    """Return [N, M] values exp(-|x - y|^2 / (2 SIGMA^2)) of x [N, d] and y [M, d]."""
    squared = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
    return (-squared.clamp_min(0) / (2 * SIGMA**2)).exp()


@dataclass(frozen=True)
class _Sums:
    """Row sums of the kernel matrices: all that the estimate and its leave-one-out values need."""

    real: Tensor              # [N]: over the other real images
    fake: Tensor              # [M]: over the other fake images
    real_to_fake: Tensor      # [N]: over all fake images
    fake_to_real: Tensor      # [M]: over all real images

    @classmethod
    def of(cls, real: Tensor, fake: Tensor, kernel: Kernel) -> _Sums:
        real_to_fake, fake_to_real = [], torch.zeros(len(fake), dtype=real.dtype, device=real.device)
        for rows in torch.split(real, ROWS):
            block = kernel(rows, fake)
            real_to_fake.append(block.sum(1))
            fake_to_real += block.sum(0)
        return cls(_row_sums(real, kernel), _row_sums(fake, kernel), torch.cat(real_to_fake), fake_to_real)

    def estimate(self, own: float | None = None) -> Tensor:
        """Return the unbiased estimate, or the biased one that counts an image with itself, of kernel value `own`."""
        n, m = len(self.real), len(self.fake)
        across = 2 * self.real_to_fake.sum() / (n * m)
        if own is not None:
            return (self.real.sum() / n + own) / n + (self.fake.sum() / m + own) / m - across
        return self.real.sum() / (n * (n - 1)) + self.fake.sum() / (m * (m - 1)) - across

    def std_error(self) -> Tensor:
        variances = (
            _jackknife(self.real, self.real_to_fake, self.fake.sum(), len(self.fake)),
            _jackknife(self.fake, self.fake_to_real, self.real.sum(), len(self.real)),
        )
        return torch.stack(variances).sum().sqrt()


def _jackknife(within: Tensor, across: Tensor, others: Tensor, m: int) -> Tensor:
    """Return the variance from leaving out each of the n images of one side; the other side has m images."""
    n = len(within)
    kept = (within.sum() - 2 * within) / ((n - 1) * (n - 2))
    left_out = kept + others / (m * (m - 1)) - 2 * (across.sum() - across) / ((n - 1) * m)
    return (n - 1) / n * (left_out - left_out.mean()).square().sum()


def _row_sums(x: Tensor, kernel: Kernel) -> Tensor:
    """Return [N] sums of each row of the kernel matrix of x with itself, without the diagonal."""
    sums = []
    for start in range(0, len(x), ROWS):
        block = kernel(x[start : start + ROWS], x)
        sums.append(block.sum(1) - block.diagonal(start))
    return torch.cat(sums)


def _directions(x: Tensor) -> Tensor:
    unit: Tensor = x / x.norm(dim=1, keepdim=True).clamp_min(SMALLEST)
    return unit


def _subset(real: Tensor, fake: Tensor, size: int, chance: torch.Generator) -> Tensor:
    first = real[torch.randperm(len(real), generator=chance)[:size].to(real.device)]
    second = fake[torch.randperm(len(fake), generator=chance)[:size].to(fake.device)]
    return _Sums.of(first, second, polynomial).estimate()


KID = Metric(kernel_distance, inputs=SEEDED, smooth=False, least=lambda dimensions: 3)
CMMD = Metric(clip_distance, least=lambda dimensions: 3)
