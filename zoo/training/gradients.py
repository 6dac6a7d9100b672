"""Gradients averaged over processes: one flat tensor, in buckets that may travel while the backward still runs.

There are no wrappers around networks, because a phase may use any part of any network, in any order and twice. What
every process sends, and in which order, is fixed by the parameters alone, so processes never wait for each other in
vain, whatever their losses reached and whatever went wrong in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from itertools import accumulate

import torch
from torch import Tensor, distributed

BUCKET = 8 << 20      # bytes of one bucket: long enough that sending it costs more than starting to
ALIGNED = 16          # numbers: each gradient begins at a multiple, where vector instructions like it


class Gradients:
    """The gradients of some parameters, and their mean over all processes.

    The flat tensor is made once and kept: a process that has run out of memory can still take part.
    """

    def __init__(self, parameters: Sequence[Tensor], *, bucket: int | None):
        """Lay out the flat tensor.

        Args:
            bucket: bytes that are sent at once; None: everything, after the backward.
        """
        self._parameters = list(reversed(parameters))      # a backward reaches the last layers first
        dtype = reduce(torch.promote_types, {parameter.dtype for parameter in self._parameters})
        sizes = [-(-parameter.numel() // ALIGNED) * ALIGNED for parameter in self._parameters]
        ends = list(accumulate(sizes))
        self._flat = torch.zeros(ends[-1], dtype=dtype, device=self._parameters[0].device)
        # Fused Adam walks parameter and gradient in memory order, so each part is strided like its parameter.
        self._parts = [
            self._flat[end - size : end - size + like.numel()].as_strided(
                like.shape, torch.empty_like(like, device="meta").stride(), end - size
            )
            for like, size, end in zip(self._parameters, sizes, ends)
        ]
        most = ends[-1] if bucket is None else max(1, bucket // self._flat.element_size())
        self._buckets = list(_buckets(sizes, most))
        self._chunks = [self._flat[ends[bucket.start] - sizes[bucket.start] : ends[bucket.stop - 1]]
                        for bucket in self._buckets]  # fmt: skip
        self._works: list[distributed.Work | None] = []      # one for each bucket that is on its way, in their order

    def __len__(self) -> int:
        return len(self._buckets)

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Send each bucket as soon as the one backward that runs within has finished it and those before it.

        No other collective call may come between this and `average`.
        """
        missing = [len(bucket) for bucket in self._buckets]
        home = [number for number, bucket in enumerate(self._buckets) for _ in bucket]

        def finished(index: int, _: Tensor) -> None:
            number = home[index]
            if number < len(self._works):
                raise RuntimeError(
                    "A gradient came twice in one backward: checkpoint activations with use_reentrant=False."
                )
            missing[number] -= 1
            while len(self._works) < len(missing) and missing[len(self._works)] == 0:
                self._send()

        hooks = [
            parameter.register_post_accumulate_grad_hook(partial(finished, index))      # type: ignore[no-untyped-call]
            for index, parameter in enumerate(self._parameters)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def average(self, flags: Tensor) -> Tensor:
        """Replace the gradients by their mean over all processes; return the sums of `flags` [k] float32.

        A gradient that some processes lack counts as zero there. One that all lack stays None.
        """
        while len(self._works) < len(self._buckets):
            self._send()
        reached = [parameter.grad is not None for parameter in self._parameters]
        device = self._flat.device      # nothing here waits for it
        told = torch.cat([torch.tensor(reached, dtype=torch.float32).to(device), flags.detach().float().to(device)])
        self._works.append(distributed.all_reduce(told, async_op=True))
        for work in self._works:
            if work is not None:
                work.wait()
        self._works = []
        self._flat.div_(distributed.get_world_size())
        anywhere = reached if all(reached) else [count > 0 for count in told[: len(reached)].tolist()]
        for parameter, part, some in zip(self._parameters, self._parts, anywhere):
            parameter.grad = part.to(parameter.dtype) if some else None
        return told[len(reached) :]

    @torch.no_grad()
    def _send(self) -> None:
        bucket = self._buckets[len(self._works)]
        found = {i: grad for i in bucket if (grad := self._parameters[i].grad) is not None}
        if found:
            torch._foreach_copy_([self._parts[i] for i in found], list(found.values()))
        for i in bucket:
            if i not in found:
                self._parts[i].zero_()
        self._works.append(distributed.all_reduce(self._chunks[len(self._works)], async_op=True))


def _buckets(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Yield ranges of neighbours whose sizes sum up to about `most`; each holds one at least."""
    start = total = 0
    for index, size in enumerate(sizes):
        total += size
        if total >= most or index == len(sizes) - 1:
            yield range(start, index + 1)
            start, total = index + 1, 0
