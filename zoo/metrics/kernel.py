"""Kernel distance between two sets of features (KID; Binkowski et al., 2018, arXiv:1801.01401)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.metrics.metric import Metric, matched

ROWS = 2048      # rows of the kernel matrix in memory at once


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
    sums = _Sums.of(real, fake)
    values = {"kid": float(sums.estimate()), "kid_std_error": float(sums.std_error())}
    if min(len(real), len(fake)) >= subset_size:
        chance = torch.Generator().manual_seed(seed % 2**64)
        drawn = torch.stack([_subset(real, fake, subset_size, chance) for _ in range(subsets)])
        values |= {"kid_subset_mean": float(drawn.mean()), "kid_subset_std": float(drawn.std(correction=0))}
    return values


@dataclass(frozen=True)
class _Sums:
    """Row sums of the kernel matrices: all that the estimate and its leave-one-out values need."""

    real: Tensor              # [N]: over the other real images
    fake: Tensor              # [M]: over the other fake images
    real_to_fake: Tensor      # [N]: over all fake images
    fake_to_real: Tensor      # [M]: over all real images

    @classmethod
    def of(cls, real: Tensor, fake: Tensor) -> _Sums:
        real_to_fake, fake_to_real = [], torch.zeros(len(fake), dtype=real.dtype, device=real.device)
        for rows in torch.split(real, ROWS):
            block = _kernel(rows, fake)
            real_to_fake.append(block.sum(1))
            fake_to_real += block.sum(0)
        return cls(_row_sums(real), _row_sums(fake), torch.cat(real_to_fake), fake_to_real)

    def estimate(self) -> Tensor:
        n, m = len(self.real), len(self.fake)
        across = 2 * self.real_to_fake.sum() / (n * m)
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


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _row_sums(x: Tensor) -> Tensor:
    """Return [N] sums of each row of the kernel matrix of x with itself, without the diagonal."""
    whole = torch.cat([_kernel(rows, x).sum(1) for rows in torch.split(x, ROWS)])
    return whole - (x.square().sum(1) / x.shape[1] + 1) ** 3


def _subset(real: Tensor, fake: Tensor, size: int, chance: torch.Generator) -> Tensor:
    first = real[torch.randperm(len(real), generator=chance)[:size].to(real.device)]
    second = fake[torch.randperm(len(fake), generator=chance)[:size].to(fake.device)]
    return _Sums.of(first, second).estimate()


KID = Metric(kernel_distance, seeded=True, least=lambda dimensions: 3)
