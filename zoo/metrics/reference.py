"""Features of real images, computed once and kept: they cost as much as those of the generated ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.home import zoo_home
from zoo.metrics import store
from zoo.metrics.features import FeatureExtractor

if TYPE_CHECKING:
    from zoo.data import ImageSet

PROBE = 16      # images whose pixels enter the key, so that a change in decoding or resizing is noticed


def reference_features(
    images: ImageSet,
    indices: Sequence[int],
    extractor: FeatureExtractor,
    *,
    batch: int,
    progress: Callable[[int], None],
) -> Tensor:
    """Return features [N, d] of the images at these places, from the cache of earlier calls where it has them.

    Args:
        progress: called with the number of images done.
    """
    path = zoo_home() / "features-cache" / f"{_key(images, indices, extractor)}.safetensors"
    if path.is_file():
        features = store.read(path)["features"]
        progress(len(features))
        return features
    parts = []
    for start in range(0, len(indices), batch):
        parts.append(extractor(images.read(indices[start : start + batch])))
        progress(min(start + batch, len(indices)))
    features = torch.cat(parts)
    store.write(path, {"features": features})
    return features


def _key(images: ImageSet, indices: Sequence[int], extractor: FeatureExtractor) -> str:
    probe = images.read(indices[:PROBE])
    facts = (
        images.fingerprint,
        len(images),
        list(probe.shape[1:]),
        hashlib.sha256(probe.numpy().tobytes()).hexdigest(),
        hashlib.sha256(torch.tensor(indices).numpy().tobytes()).hexdigest(),
        extractor.digest,
        extractor.resize,
        extractor.dimensions,
        str(extractor.device.type),
        version("torch"),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:40]
