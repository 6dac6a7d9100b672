"""A model's samples as they would be saved: 8-bit images of fixed seeds, independent of how many are drawn at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from zoo.errors import EvaluationError
from zoo.images import to_bytes
from zoo.noise import Noise, key

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.metrics.features import FeatureExtractor
    from zoo.model import Model

CHUNK = 64      # images that share a seed; part of what a seed means, so a constant


@dataclass(frozen=True)
class Sampler:
    """Draws a model's images 0, 1, 2, ...: image i is the same whatever the number asked for."""

    model: Model
    seed: int
    psi: float
    frequencies: Tensor | None                              # [classes], what labels are drawn with; None: no labels
    labels: Literal["none", "as in the data", "uniform"]    # where the frequencies come from

    @classmethod
    def of(cls, model: Model, images: ImageSet, *, seed: int, psi: float) -> Sampler:
        """Return a sampler whose labels are as frequent as in the data if both have the same number of classes."""
        classes = model.config.num_classes
        if not classes:
            return cls(model, seed, psi, None, "none")
        if images.labels is not None and len(images.classes) == classes:
            counts = np.bincount(images.labels, minlength=classes)
            return cls(model, seed, psi, torch.from_numpy(counts / counts.sum()), "as in the data")
        return cls(model, seed, psi, torch.full((classes,), 1 / classes, dtype=torch.float64), "uniform")

    def chunk(self, index: int) -> Tensor:
        """Return images CHUNK * index to CHUNK * (index + 1) as uint8 [CHUNK, C, H, W].

        Raises:
            EvaluationError: the model makes values that are not finite.
        """
        images = self.model.sample(
            CHUNK, seed=key("evaluation", self.seed, index), labels=self._labels(index), psi=self.psi
        )
        if not images.isfinite().all():
            raise EvaluationError("The model makes NaN or infinity: its training diverged, so take earlier weights.")
        return to_bytes(images)

    def batches(self, n: int, size: int) -> Iterator[Tensor]:
        """Yield images 0 to n in batches of `size`, the last one smaller."""
        waiting = torch.empty(0, dtype=torch.uint8)
        for index in range(-(-n // CHUNK)):
            fresh = self.chunk(index)[: n - index * CHUNK]
            waiting = torch.cat([waiting, fresh]) if len(waiting) else fresh
            while len(waiting) >= size:
                yield waiting[:size]
                waiting = waiting[size:]
        if len(waiting):
            yield waiting

    def features(self, n: int, extractor: FeatureExtractor, *, batch: int, progress: Callable[[int], None]) -> Tensor:
        """Return features [n, d] of images 0 to n; `progress` hears how many are done."""
        parts, done = [], 0
        for images in self.batches(n, batch):
            parts.append(extractor(images))
            done += len(images)
            progress(done)
        return torch.cat(parts)

    def _labels(self, index: int) -> Tensor | None:
        if self.frequencies is None:
            return None
        places = Noise(key("evaluation labels", self.seed, index)).uniform(CHUNK).double()
        edges = self.frequencies.cumsum(0)
        return torch.searchsorted(edges, places * edges[-1], right=True).clamp_max(len(edges) - 1)
