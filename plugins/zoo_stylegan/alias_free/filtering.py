"""Leaky ReLU at a higher resolution, between two filters (Karras et al., 2021, section 3.2 and figure 4b).

Filters are banded matrices along rows and along columns: y = D act(U x U^T) D^T, a radial D being a sum of few such
products. The image is cut into tiles of the output; each needs a window of the input, little larger, for which the
matrices are small and dense. So everything is a matrix product on data that stays in the processor's cache, and the
activations at the higher resolution, four to sixteen times the output's, are never stored: the backward pass makes
them anew.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu_

from zoo_stylegan.alias_free.filters import design, rows
from zoo_stylegan.alias_free.geometry import Resampling
from zoo_stylegan.layers import ROOT_TWO, SLOPE, wide

TILE = {"cpu": 24}        # outputs along a tile; the matrices grow with it, what tiles have in common shrinks
TILE_ELSEWHERE = 64       # where starting a product costs more than a larger one
CACHE = 2**18             # activations that a tile makes at once, for each thread


class Window(NamedTuple):
    """One tile's matrices along one direction; rows and columns share them."""

    output: slice
    input: slice
    up: Tensor           # [between, input], with the root of the activation's gain: it is applied twice
    left: Tensor         # [output K, between]: the K terms of the down-sampling filter
    right: Tensor        # [K between, output]: their other direction


@lru_cache(maxsize=256)
def windows(resampling: Resampling, tile: int, dtype: torch.dtype, device: torch.device) -> tuple[Window, ...]:
    """Return the tiles of one direction, in order."""
    with torch.inference_mode(False):      # they outlive whoever asks first
        up = design(resampling.up_filter) * resampling.up * sqrt(ROOT_TWO)
        column, row = rows(design(resampling.down_filter))
        count = -(-resampling.outputs // tile)
        edges = [resampling.outputs * i // count for i in range(count + 1)]
        found = [_window(resampling, up, column, row, start, stop) for start, stop in pairwise(edges)]
        return tuple(
            Window(each.output, each.input, *(matrix.to(device, dtype).contiguous() for matrix in each[2:]))
            for each in found
        )


def _window(resampling: Resampling, up: Tensor, column: Tensor, row: Tensor, start: int, stop: int) -> Window:
    """Return one tile: the outputs from start to stop, what lies between for them, and the inputs for that."""
    factor, step, before = resampling.up, resampling.down, resampling.before
    first, last = start * step, (stop - 1) * step + column.shape[1]
    low = min(max(-((before - first) // factor), 0), resampling.inputs)
    high = max(low, min((last - 1 + len(up) - 1 - before) // factor + 1, resampling.inputs))
    between = torch.arange(first, last, device="cpu")
    raised = _taps(up[None], torch.arange(low, high, device="cpu") * factor + before - between[:, None])[0]
    place = between - torch.arange(start, stop, device="cpu")[:, None] * step      # [output, between]
    left, right = _taps(column, place), _taps(row, place)
    return Window(
        slice(start, stop), slice(low, high), raised, left.transpose(0, 1).flatten(0, 1), right.mT.flatten(0, 1)
    )


def _taps(taps: Tensor, place: Tensor) -> Tensor:
    """Return [K, ...]: each of K filters' taps at these places [...], 0 where there is none."""
    inside = (place >= 0) & (place < taps.shape[1])
    return taps[:, place.clamp(0, taps.shape[1] - 1)] * inside


def filtered_leaky_relu(x: Tensor, resampling: Resampling) -> Tensor:
    """[N, C, inputs, inputs] -> [N, C, outputs, outputs]; differentiable any number of times."""
    out: Tensor = _Filtered.apply(wide(x), resampling)
    return out.to(x.dtype)


class _Filtered(torch.autograd.Function):
    """x -> D act(U x). Its derivative J at x is the linear D act'(U x) U, and J does not change with x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, resampling: Resampling) -> Tensor:
        ctx.save_for_backward(x)
        ctx.resampling = resampling
        with torch.autocast(x.device.type, enabled=False):      # filters of eight bits leak
            return _push(x, None, resampling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None]:
        (x,) = ctx.saved_tensors
        return _Pull.apply(gradients[0], x, ctx.resampling), None


class _Pull(torch.autograd.Function):
    """gradient -> J^T gradient."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, resampling: Resampling) -> Tensor:
        ctx.save_for_backward(x)
        ctx.resampling = resampling
        with torch.autocast(x.device.type, enabled=False):
            return _pull(gradient, x, resampling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (x,) = ctx.saved_tensors
        return _Push.apply(gradients[0], x, ctx.resampling), None, None


class _Push(torch.autograd.Function):
    """v -> J v, which is what the derivative of `_Pull` needs."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, x: Tensor, resampling: Resampling) -> Tensor:
        ctx.save_for_backward(x)
        ctx.resampling = resampling
        with torch.autocast(x.device.type, enabled=False):
            return _push(x, v, resampling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (x,) = ctx.saved_tensors
        return _Pull.apply(gradients[0], x, ctx.resampling), None, None


def _push(x: Tensor, v: Tensor | None, resampling: Resampling) -> Tensor:
    """Return D act(U x), or J v."""
    n, c = x.shape[:2]
    planes, moved = x.flatten(0, 1), None if v is None else v.flatten(0, 1)
    out = x.new_empty(n * c, resampling.outputs, resampling.outputs)
    tiles, step = _plan(x, resampling)
    for part in range(0, n * c, step):
        share = slice(part, part + step)
        for row in tiles:
            for column in tiles:
                raised = _raise(planes[share], row, column)
                if moved is None:
                    raised = _act(raised, resampling.clamp)
                else:
                    raised = _slopes(raised, resampling.clamp) * _raise(moved[share], row, column)
                lowered = (row.left @ raised).reshape(len(raised), -1, len(column.right))
                out[share, row.output, column.output] = lowered @ column.right
    return out.view(n, c, *out.shape[1:])


def _pull(gradient: Tensor, x: Tensor, resampling: Resampling) -> Tensor:
    """Return J^T gradient."""
    n, c = x.shape[:2]
    planes, given = x.flatten(0, 1), gradient.flatten(0, 1)
    out = x.new_zeros(n * c, resampling.inputs, resampling.inputs)
    tiles, step = _plan(x, resampling)
    for part in range(0, n * c, step):
        share = slice(part, part + step)
        for row in tiles:
            for column in tiles:
                lowered = given[share, row.output, column.output] @ column.right.T
                spread = row.left.T @ lowered.reshape(len(lowered), len(row.left), -1)
                spread *= _slopes(_raise(planes[share], row, column), resampling.clamp)
                out[share, row.input, column.input] += row.up.T @ (spread @ column.up)
    return out.view(n, c, *out.shape[1:])


def _plan(x: Tensor, resampling: Resampling) -> tuple[tuple[Window, ...], int]:
    """Return the tiles of one direction, and how many planes to work on at once."""
    tiles = windows(resampling, TILE.get(x.device.type, TILE_ELSEWHERE), x.dtype, x.device)
    largest = max(len(tile.up) for tile in tiles) ** 2
    return tiles, max(1, CACHE * torch.get_num_threads() // largest) if x.device.type == "cpu" else len(x) * x.shape[1]


def _raise(planes: Tensor, row: Window, column: Window) -> Tensor:
    return row.up @ (planes[:, row.input, column.input] @ column.up.T)


def _act(x: Tensor, clamp: float | None) -> Tensor:
    x = leaky_relu_(x, SLOPE)
    return x if clamp is None else x.clamp_(-clamp, clamp)


def _slopes(x: Tensor, clamp: float | None) -> Tensor:
    """Return the derivative of `_act`."""
    slopes = torch.where(x > 0, 1.0, SLOPE).to(x.dtype)
    return slopes if clamp is None else slopes * ((x <= clamp) & (x >= -clamp / SLOPE))
