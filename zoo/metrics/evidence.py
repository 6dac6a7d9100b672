"""All that the metrics of one evaluation may look at: computed when it is first asked for, and once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from zoo.errors import EvaluationError
from zoo.metrics import names
from zoo.metrics.features import logits_of
from zoo.metrics.reference import reference_features
from zoo.metrics.sharing import Crew

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.metrics.features import FeatureExtractor
    from zoo.metrics.sampling import Fakes
    from zoo.model import Model

Progress = Callable[[str, int, int], None]       # (stage: "real" or "fake", images done, images in all)


class Evidence:
    """Real and fake images and what follows from them, under the names that `zoo.metrics.metric.Metric` asks by.

    Args:
        fakes: where the fakes come from, and `samples` how many of them.
        images: the real images, and `places` which of them.
        features: name of the extractor.
        device: where features are computed.
        seed: of metrics that draw at random.
        batch: images whose features are computed at once.
        progress: called with ("real" or "fake", images done, images in all).
        crew: the processes that share the work.
    """

    def __init__(
        self,
        fakes: Fakes,
        samples: int,
        images: ImageSet,
        places: Sequence[int],
        *,
        features: str,
        device: torch.device,
        seed: int,
        batch: int,
        progress: Progress | None = None,
        crew: Crew | None = None,
    ):
        self.fakes, self.samples, self.images, self.places = fakes, samples, images, places
        self.seed, self.batch, self.crew = seed, batch, crew or Crew()
        self.device, self._features, self._progress = device, features, progress

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """What makes features of images."""
        return names.extractor(self._features, self.device)

    @cached_property
    def classifier(self) -> FeatureExtractor:
        """The extractor, whose classifier is at hand."""
        logits_of(self.extractor)(torch.zeros(1, self.extractor.dimensions))
        return self.extractor

    @cached_property
    def real(self) -> Tensor:
        """Features [N, d] of the real images."""
        told = self._told("real", len(self.places))
        return reference_features(
            self.images, self.places, self.extractor, batch=self.batch, progress=told, crew=self.crew
        )

    @cached_property
    def fake(self) -> Tensor:
        """Features [M, d] of the fakes."""
        told = self._told("fake", self.samples)
        return self.fakes.features(self.samples, self.extractor, batch=self.batch, progress=told, crew=self.crew)

    @cached_property
    def real_labels(self) -> Tensor:
        """Class [N] of each real image."""
        labels = self.images.labels_of(self.places)
        if labels is None:
            raise EvaluationError(
                f"{self.images.name} has no classes, which a metric asks for: give a folder with a subfolder a class."
            )
        return labels

    @cached_property
    def fake_labels(self) -> Tensor:
        """Class [M] that each fake was to show, numbered as those of the real images."""
        labels = self.fakes.labels_of(self.samples)
        if labels is None:
            raise EvaluationError("The fakes have no classes, which a metric asks for: leave it out of --metrics.")
        if self.fakes.classes != len(self.images.classes):
            theirs = f"the fakes have {self.fakes.classes} classes, {self.images.name} {len(self.images.classes)}"
            raise EvaluationError(f"A metric compares class by class, but {theirs}: give data of the same classes.")
        return labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the real images."""
        return tuple(self.images.classes)

    @cached_property
    def held_out(self) -> Tensor:
        """Which of the real images [N], bool, were kept out of the model's training; none where that is not known."""
        unseen = np.asarray(self.fakes.unseen, dtype=np.int64)
        return torch.from_numpy(np.isin(np.asarray(self.places), unseen))

    @property
    def model(self) -> Model:
        """The model that makes the fakes."""
        if self.fakes.model is None:
            raise EvaluationError("A metric asks for the model, but the fakes were given as images: leave it out.")
        return self.fakes.model

    def _told(self, stage: str, total: int) -> Callable[[int], None]:
        def tell(done: int) -> None:
            if self._progress is not None:
                self._progress(stage, done, total)

        return tell
