"""Features of given images, computed once and kept: they cost as much as those of the generated ones.

They are kept in blocks, so that work that ends early is not lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.home import zoo_home
from zoo.metrics import store
from zoo.metrics.features import FeatureExtractor
from zoo.metrics.sharing import Crew

if TYPE_CHECKING:
    from zoo.data import ImageSet

PROBE = 16      # images whose pixels enter the key, so that a change in decoding or resizing is noticed
BLOCK = 1024    # images whose features are kept in one file


def reference_features(
    images: ImageSet,
    indices: Sequence[int],
    extractor: FeatureExtractor,
    *,
    batch: int,
    progress: Callable[[int], None],
    crew: Crew | None = None,
) -> Tensor:
    """Return features [N, d] of the images at these places, from the cache of earlier calls where it has them.

    Args:
        progress: called with the number of images done.
        crew: the processes that share the work, all of which call this.
    """
    parts = []
    for start, block, path in _blocks(images, indices, extractor):
        ahead = partial(_ahead, progress, start)
        parts.append(_block(path, images, block, extractor, batch, ahead, crew or Crew()))
    return torch.cat(parts) if parts else torch.empty(0, extractor.dimensions)


def are_kept(images: ImageSet, indices: Sequence[int], extractor: FeatureExtractor) -> bool:
    """Return whether the features of all of these are in the cache."""
    return all(path.is_file() for _, _, path in _blocks(images, indices, extractor))


def _blocks(
    images: ImageSet, indices: Sequence[int], extractor: FeatureExtractor
) -> Iterator[tuple[int, Sequence[int], Path]]:
    """Yield (images before it, places, file) of each block."""
    probe = hashlib.sha256(images.read(indices[:PROBE]).numpy().tobytes()).hexdigest()
    for start in range(0, len(indices), BLOCK):
        block = indices[start : start + BLOCK]
        name = f"{_key(images, probe, block, extractor)}.safetensors"
        yield start, block, zoo_home() / "features-cache" / name


def _ahead(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def _block(
    path: Path,
    images: ImageSet,
    indices: Sequence[int],
    extractor: FeatureExtractor,
    batch: int,
    progress: Callable[[int], None],
    crew: Crew,
) -> Tensor:
    if crew.agreed(path.is_file()):
        features = store.read(path)["features"]
        progress(len(features))
        return features
    features = crew.features(
        lambda start, stop: images.read(indices[start:stop]), len(indices), extractor, batch=batch, progress=progress
    )
    if crew.leads:
        store.write(path, {"features": features})
    return features


def _key(images: ImageSet, probe: str, indices: Sequence[int], extractor: FeatureExtractor) -> str:
    facts = (
        images.fingerprint,
        len(images),
        (images.channels, images.resolution),
        probe,
        hashlib.sha256(torch.tensor(indices).numpy().tobytes()).hexdigest(),
        extractor.digest,
        extractor.resize,
        extractor.dimensions,
        str(extractor.device.type),
        version("torch"),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:40]
