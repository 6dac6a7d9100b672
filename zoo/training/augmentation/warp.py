"""Images seen at other places: a resampling that may be differentiated as often as one likes.

R1 differentiates twice, and whether torch's own `grid_sample` allows that depends on its version (pytorch issue 34704).
With the places given, resampling is linear in the images: its gradient is the transposed map, and that one's gradient
is the resampling again. torch has both as kernels. On a GPU the transposed one adds in any order: last digits may vary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NEAREST, LINEAR = 1, 0      # torch's numbers for how to interpolate
ZEROS = 0                   # and for what lies outside


def warp(images: Tensor, at: Tensor, *, nearest: bool = False) -> Tensor:
    """Return images [N, C, h, w] read from images [N, C, H, W] at pixel coordinates `at` [N, h, w, 2], x before y.

    Coordinate 0 is the centre of the first pixel; outside is 0. Between pixels it is bilinear, or the nearest one's.
    Gradients flow to the images, not to the places.
    """
    size = torch.tensor([images.shape[3], images.shape[2]], device=at.device, dtype=at.dtype)
    grid = ((2 * at + 1) / size - 1).to(images.dtype)      # torch counts from -1 to 1 between the outer edges
    result: Tensor = _Read.apply(images, grid, NEAREST if nearest else LINEAR)
    return result


def reflect(at: Tensor, size: int) -> Tensor:
    """Fold coordinates back into [0, size - 1], as mirrors through the centres of the outer pixels would."""
    period = max(1, 2 * (size - 1))
    return (size - 1) - ((at % period) - (size - 1)).abs() if size > 1 else torch.zeros_like(at)


class _Read(torch.autograd.Function):
    """From images to what is seen at the places."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor, mode: int) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape, ctx.mode = images.shape, mode
        return torch.grid_sampler_2d(images, grid, mode, ZEROS, False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(gradients[0], grid, ctx.shape, ctx.mode), None, None


class _Spread(torch.autograd.Function):
    """The transposed map: each value goes to the pixels that it was read from."""

    @staticmethod
    def forward(ctx: Any, seen: Tensor, grid: Tensor, shape: torch.Size, mode: int) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.mode = mode
        images = seen.new_zeros(()).expand(shape)      # only their shape matters here
        only_images = [True, False]
        spread: Tensor = torch.ops.aten.grid_sampler_2d_backward(seen, images, grid, mode, ZEROS, False, only_images)[0]
        return spread

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (grid,) = ctx.saved_tensors
        return _Read.apply(gradients[0], grid, ctx.mode), None, None, None
