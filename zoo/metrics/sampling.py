"""Fakes as they would be saved: 8-bit images, each the same however many are asked for and in which batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from zoo.errors import EvaluationError
from zoo.images import to_bytes
from zoo.metrics.features import FeatureExtractor, digest
from zoo.metrics.reference import reference_features
from zoo.metrics.sharing import Crew
from zoo.noise import Noise, key

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.model import Model

CHUNK = 64      # images that share a seed; part of what a seed means, so a constant


class Fakes(Protocol):
    """Images 0, 1, 2, ... that are judged."""

    seed: int
    classes: int      # how many; 0: none
    unseen: Sequence[int]      # places of the real images that their maker was kept from in its training

    @property
    def psi(self) -> float:
        """Truncation; 1 is none."""

    @property
    def labels(self) -> str:
        """Where their classes come from."""

    @property
    def model(self) -> Model | None:
        """What makes them."""

    def read(self, start: int, stop: int) -> Tensor:
        """Return images start to stop as uint8 [stop - start, C, H, W]."""

    def features(
        self, n: int, extractor: FeatureExtractor, *, batch: int, progress: Callable[[int], None], crew: Crew
    ) -> Tensor:
        """Return features [n, d] of images 0 to n; `progress` hears how many are done."""

    def labels_of(self, n: int) -> Tensor | None:
        """Return the classes [n] of images 0 to n, or None."""

    def about(self) -> dict[str, Any]:
        """Return what a receipt says of where they come from: architecture, origin, config, digest."""


class Sampler:
    """A model's images: image i depends on model, seed, psi and i alone.

    Args:
        frequencies: [classes], what labels are drawn with; None: no labels.
        labels: where the frequencies come from.
        unseen: places of the real images that the model was kept from in its training, as far as that is known.
    """

    def __init__(
        self,
        model: Model,
        seed: int,
        psi: float,
        frequencies: Tensor | None,
        labels: Literal["none", "as in the data", "uniform"],
        unseen: Sequence[int] = (),
    ):
        self.unseen = unseen
        self.model, self.seed, self.psi, self.frequencies, self.labels = model, seed, psi, frequencies, labels
        self.classes = 0 if frequencies is None else len(frequencies)
        self._last: tuple[int, Tensor] | None = None      # the chunk that the next batch most likely begins in

    @classmethod
    def of(cls, model: Model, images: ImageSet, *, seed: int, psi: float, unseen: Sequence[int] = ()) -> Sampler:
        """Return a sampler whose labels are as frequent as in the data if both have the same number of classes."""
        classes = model.config.num_classes
        if not classes:
            return cls(model, seed, psi, None, "none", unseen)
        if images.labels is not None and len(images.classes) == classes:
            counts = np.bincount(images.labels, minlength=classes)
            return cls(model, seed, psi, torch.from_numpy(counts / counts.sum()), "as in the data", unseen)
        return cls(model, seed, psi, torch.full((classes,), 1 / classes, dtype=torch.float64), "uniform", unseen)

    def chunk(self, index: int) -> Tensor:
        """Return images CHUNK * index to CHUNK * (index + 1) as uint8 [CHUNK, C, H, W].

        Raises:
            EvaluationError: the model makes values that are not finite.
        """
        if self._last is not None and self._last[0] == index:
            return self._last[1]
        images = self.model.sample(
            CHUNK, seed=key("evaluation", self.seed, index), labels=self._labels(index), psi=self.psi
        )
        if not images.isfinite().all():
            raise EvaluationError("The model makes NaN or infinity: its training diverged, so take earlier weights.")
        self._last = index, to_bytes(images)
        return self._last[1]

    def read(self, start: int, stop: int) -> Tensor:
        """Return images start to stop as uint8 [stop - start, C, H, W]."""
        first, last = start // CHUNK, -(-stop // CHUNK)
        images = torch.cat([self.chunk(index) for index in range(first, last)])
        return images[start - first * CHUNK : stop - first * CHUNK]

    def batches(self, n: int, size: int) -> Iterator[Tensor]:
        """Yield images 0 to n in batches of `size`, the last one smaller."""
        for start in range(0, n, size):
            yield self.read(start, min(start + size, n))

    def features(
        self, n: int, extractor: FeatureExtractor, *, batch: int, progress: Callable[[int], None], crew: Crew
    ) -> Tensor:
        """Return features [n, d] of images 0 to n; `progress` hears how many are done."""
        return crew.features(self.read, n, extractor, batch=batch, progress=progress)

    def labels_of(self, n: int) -> Tensor | None:
        """Return the classes [n] that images 0 to n were to show, or None for a model without classes."""
        if self.frequencies is None:
            return None
        drawn = [self._labels(index) for index in range(-(-n // CHUNK))]
        return torch.cat([each for each in drawn if each is not None])[:n]

    def about(self) -> dict[str, Any]:
        """Return architecture, origin, config and digest of the weights, and how many real images it was kept from."""
        model = self.model
        return {
            **({"held_out": len(self.unseen)} if len(self.unseen) else {}),
            "architecture": model.architecture,
            "origin": dict(model.origin),
            "config": model.config.model_dump(mode="json"),
            "digest": digest(model.state_dict()),
        }

    def _labels(self, index: int) -> Tensor | None:
        if self.frequencies is None:
            return None
        places = Noise(key("evaluation labels", self.seed, index)).uniform(CHUNK).double()
        edges = self.frequencies.cumsum(0)
        return torch.searchsorted(edges, places * edges[-1], right=True).clamp_max(len(edges) - 1)


class GivenImages:
    """Images that exist already as fakes: a folder that another program filled, or another set of real ones.

    Args:
        images: all of them.
        places: which are judged, in this order.
    """

    psi, model = 1.0, None
    unseen: Sequence[int] = ()

    def __init__(self, images: ImageSet, places: list[int], *, seed: int):
        self.images, self.places, self.seed = images, places, seed
        self.classes = len(images.classes)
        self.labels = "of the images" if self.classes else "none"

    def read(self, start: int, stop: int) -> Tensor:
        """Return images start to stop as uint8 [stop - start, C, H, W]."""
        return self.images.read(self.places[start:stop])

    def features(
        self, n: int, extractor: FeatureExtractor, *, batch: int, progress: Callable[[int], None], crew: Crew
    ) -> Tensor:
        """Return features [n, d] of images 0 to n, which are kept as those of real ones are."""
        return reference_features(
            self.images, self.places[:n], extractor, batch=batch, progress=progress, crew=crew
        )

    def labels_of(self, n: int) -> Tensor | None:
        """Return the classes [n] of images 0 to n, or None."""
        return self.images.labels_of(self.places[:n])

    def about(self) -> dict[str, Any]:
        """Return what stands where a receipt names a model: their kind, name and size, and their fingerprint."""
        config: Mapping[str, int] = {"resolution": self.images.resolution, "channels": self.images.channels}
        origin = {"name": self.images.name, "skipped": len(self.images.skipped)}
        return {"architecture": "images", "origin": origin, "config": dict(config), "digest": self.images.fingerprint}
