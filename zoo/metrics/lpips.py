"""LPIPS, the learned perceptual image patch similarity (Zhang et al., 2018, arXiv:1801.03924): how unlike two images
look to people, as far as the features of a network that classifies photographs tell.

With unit features f_l [c, h, w] of five layers l and weights w_l >= 0 that were fitted to people's judgements (eq. 1):

    d(a, b) = sum over l of mean over places of sum over channels of w_l (f_l(a) - f_l(b))^2
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, max_pool2d

from zoo.errors import EvaluationError
from zoo.metrics.lpips_weights import NETWORKS, load
from zoo.perceptual import difference, directions, enlarged
from zoo.storage import digest

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)      # of ImageNet's colours, for images in [-1, 1]
AT_ONCE = 2**19                                                     # pixels that pass the network at once
PATCH = 64                                                          # pixels of the images that its weights learned on


class LPIPS:
    """Two batches of images [N, C, H, W] in [-1, 1] -> their distances, float64 [N], 0 for equal ones.

    Images are RGB, grey, which is repeated, or RGBA, which is laid over white. They are compared at the size that they
    have. Beyond [-1, 1] the formula goes on. No gradient is taken.

    Args:
        network: "alex", which the authors compare images with, or "vgg" (VGG16), which others call perceptual loss.
        device: where it works; the result is there too.

    Raises:
        EvaluationError: another name, or no weights are to be had; the message says what to install.
    """

    def __init__(self, network: str, device: str | torch.device | None = None):
        if network not in NETWORKS:
            raise EvaluationError(f"LPIPS has no network {network!r}; it has {', '.join(NETWORKS)}.")
        self.network, self.device = network, torch.device(device or "cpu")
        self._tensors = {name: tensor.to(self.device) for name, tensor in load(network).items()}

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        published = NETWORKS[self.network]
        if a.shape != b.shape or not all(_are_images(each, published.smallest) for each in (a, b)):
            least = f"{published.smallest}x{published.smallest}"
            given = f"{list(a.shape)} ({a.dtype}) and {list(b.shape)} ({b.dtype})"
            raise EvaluationError(
                f"{given} cannot be compared: give two batches of images [N, C, H, W] in [-1, 1] of 1, 3 or 4 channels "
                f"and {least} pixels at least."
            )
        step = max(1, AT_ONCE // (a.shape[2] * a.shape[3]))
        # Convolutions on recent GPUs round to 10 bits (TF32) by default.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
            parts = [self._distances(x, y) for x, y in zip(torch.split(a, step), torch.split(b, step))]
        return torch.cat(parts)

    def _distances(self, a: Tensor, b: Tensor) -> Tensor:
        pairs = zip(self.features(a), self.features(b), strict=True)
        layers = [difference(x, y, self._tensors[f"heads.{i}"]).double() for i, (x, y) in enumerate(pairs)]
        return torch.stack(layers).sum(0)

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Return the five unit feature maps [N, c, h, w] of images, the largest first."""
        published = NETWORKS[self.network]
        first = self._tensors["convolutions.0.weight"]
        x = (on_white(images.to(first)) - first.new_tensor(SHIFT).view(3, 1, 1)) / first.new_tensor(SCALE).view(3, 1, 1)
        maps = []
        for i, shape in enumerate(published.shapes):
            if i in published.pooled:
                x = max_pool2d(x, *published.pool)
            weight, bias = self._tensors[f"convolutions.{i}.weight"], self._tensors[f"convolutions.{i}.bias"]
            stride, padding = (1, shape[-1] // 2) if i else published.first
            x = conv2d(x, weight, bias, stride, padding).relu()
            if i in published.compared:
                maps.append(x)
        return directions(maps)


def on_white(images: Tensor) -> Tensor:
    """Return RGB [N, 3, H, W] of grey, RGB or RGBA images in [-1, 1]; what is transparent shows white."""
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    if images.shape[1] == 3:
        return images
    alpha = (images[:, 3:] + 1) / 2
    return images[:, :3] * alpha + (1 - alpha)


def at_size(images: Tensor, largest: int | None = None) -> Tensor:
    """Return images [N, C, H, W] in [-1, 1] as metrics show them to LPIPS: RGB, and neither too small nor too large.

    Smaller ones are brought to 64x64 pixels, bilinearly. Larger ones stay as they are, or are brought to `largest`
    pixels a side by averaging areas.
    """
    images = on_white(images)
    if largest is not None and max(images.shape[2:]) > largest:
        return interpolate(images, size=(largest, largest), mode="area")
    return enlarged(images, PATCH)


def weights_of(network: str) -> dict[str, str]:
    """Return {"lpips-NETWORK": sha256 of its weights}, for receipts."""
    return {f"lpips-{network}": digest(load(network))}


def _are_images(images: Tensor, smallest: int) -> bool:
    fits = images.ndim == 4 and images.shape[1] in (1, 3, 4) and min(images.shape[2:]) >= smallest
    return fits and images.is_floating_point()
