"""Images to feature vectors: what an extractor is, and how any image becomes the RGB that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zoo.errors import EvaluationError
from zoo.metrics.names import extractor
from zoo.storage import digest

__all__ = ["Classifier", "FeatureExtractor", "digest", "extractor", "logits_of", "to_rgb"]


@dataclass(frozen=True)
class FeatureExtractor:
    """A fixed function of images. Name, digest and resize together say which: they go into every receipt."""

    name: str                              # as the caller writes it: "inception", "timm:NAME"
    digest: str                            # sha256 of its weights; see `digest`
    resize: str                            # how images reach its input size: "tf1-bilinear-299"
    dimensions: int                        # length of a feature vector
    network: Callable[[Tensor], Tensor]    # RGB uint8 [N, 3, H, W] on `device` -> features [N, dimensions]
    device: torch.device
    logits: Callable[[Tensor], Tensor] | None = None      # its classifier: features [N, dimensions] -> logits [N, K]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features [N, dimensions], on the CPU, of uint8 images [N, C, H, W] with 1, 3 or 4 channels.

        Raises:
            EvaluationError: other shapes or types.
        """
        # Convolutions on recent GPUs round to 10 bits (TF32) by default, which moves a Frechet distance.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
            return self.network(to_rgb(images.to(self.device))).float().cpu()


class Classifier:
    """The last layer of a network that tells classes apart: features [N, d] -> logits [N, K] in float64.

    Args:
        read: returns weight [K, d] and bias [K] or None; called when logits are first asked for, as many never ask.
    """

    def __init__(self, read: Callable[[], tuple[Tensor, Tensor | None]]):
        self._read = read

    @cached_property
    def _layer(self) -> tuple[Tensor, Tensor | None]:
        return self._read()

    def __call__(self, features: Tensor) -> Tensor:
        weight, bias = self._layer
        logits = features.double() @ weight.to(features.device).double().T
        return logits if bias is None else logits + bias.to(features.device).double()


def logits_of(extractor: FeatureExtractor) -> Callable[[Tensor], Tensor]:
    """Return an extractor's classifier.

    Raises:
        EvaluationError: it has none.
    """
    if extractor.logits is None:
        raise EvaluationError(
            f"features={extractor.name!r} have no classifier, which the Inception Score asks: give 'inception', "
            "'timm:tf_efficientnet_lite0', or another of timm's that was trained on classes, such as a tag in1k."
        )
    return extractor.logits


def to_rgb(images: Tensor) -> Tensor:
    """Return uint8 images [N, 3, H, W]: grey repeated, RGBA laid over white.

    Raises:
        EvaluationError: images that are not uint8 [N, C, H, W] with 1, 3 or 4 channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3, 4) or images.dtype != torch.uint8:
        raise EvaluationError(
            f"Images of shape {list(images.shape)} and type {images.dtype} have no features: "
            "give uint8 [N, C, H, W] with 1, 3 or 4 channels."
        )
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    if images.shape[1] == 3:
        return images
    colour, alpha = images[:, :3].float(), images[:, 3:].float() / 255
    return (colour * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
