"""Images to feature vectors: what an extractor is, and how any image becomes the RGB that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.errors import EvaluationError
from zoo.metrics.names import extractor
from zoo.storage import digest

__all__ = ["FeatureExtractor", "digest", "extractor", "to_rgb"]


@dataclass(frozen=True)
class FeatureExtractor:
    """A fixed function of images. Name, digest and resize together say which: they go into every receipt."""

    name: str                              # as the caller writes it: "inception", "timm:NAME"
    digest: str                            # sha256 of its weights; see `digest`
    resize: str                            # how images reach its input size: "tf1-bilinear-299"
    dimensions: int                        # length of a feature vector
    network: Callable[[Tensor], Tensor]    # RGB uint8 [N, 3, H, W] on `device` -> features [N, dimensions]
    device: torch.device

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return float32 features [N, dimensions], on the CPU, of uint8 images [N, C, H, W] with 1, 3 or 4 channels.

        Raises:
            EvaluationError: other shapes or types.
        """
        # Convolutions on recent GPUs round to 10 bits (TF32) by default, which moves a Frechet distance.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
            return self.network(to_rgb(images.to(self.device))).float().cpu()


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
