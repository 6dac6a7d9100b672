"""Inception-v3 as the Frechet inception distance uses it: the network of 2015-12-05, up to its 2048 pooled features.

Architecture: Szegedy et al., 2015, arXiv:1512.00567. This graph differs from later Inception-v3 in three ways that
change the features: average pooling leaves the padding out of the mean, the last block pools by maximum, and images
are resized as TensorFlow 1 did. Batch normalisation (no scale, epsilon 1e-3) is folded into the convolutions.

``inception:clean`` is the same network on images resized as clean-fid does (Parmar et al., 2022, arXiv:2104.11222).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

from zoo.errors import EvaluationError
from zoo.metrics.features import Classifier, FeatureExtractor, digest
from zoo.metrics.resizing import clean_bicubic, tf1_bilinear

SIZE = 299
DIMENSIONS = 2048
BATCH_NORM_EPS = 1e-3
Resize: TypeAlias = Callable[[Tensor, int], Tensor]
RESIZES: dict[str, tuple[Resize, str]] = {"": (tf1_bilinear, "tf1-bilinear"), "clean": (clean_bicubic, "clean-bicubic")}


class Conv(nn.Conv2d):
    """A convolution with its batch normalisation folded in, and a ReLU. Padding keeps the size unless `valid`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, *, valid: bool = False
    ):
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid else (height // 2, width // 2)
        super().__init__(inputs, outputs, (height, width), stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return relu(super().forward(x), inplace=True)


class Block35(nn.Module):
    """Mixed_5: [N, C, 35, 35] -> [N, 224 + pool, 35, 35]."""

    def __init__(self, inputs: int, pool: int):
        super().__init__()
        self.branch1x1 = Conv(inputs, 64, 1)
        self.branch5x5_1 = Conv(inputs, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3)
        self.branch_pool = Conv(inputs, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_average(x))], 1)


class Reduce35(nn.Module):
    """Mixed_6a: [N, C, 35, 35] -> [N, 480 + C, 17, 17]."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = Conv(inputs, 384, 3, 2, valid=True)
        self.branch3x3dbl_1 = Conv(inputs, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3, 2, valid=True)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, max_pool2d(x, 3, 2)], 1)


class Block17(nn.Module):
    """Mixed_6: [N, 768, 17, 17] -> the same; `width` channels inside."""

    def __init__(self, width: int, inputs: int = 768):
        super().__init__()
        self.branch1x1 = Conv(inputs, 192, 1)
        self.branch7x7_1 = Conv(inputs, width, 1)
        self.branch7x7_2 = Conv(width, width, (1, 7))
        self.branch7x7_3 = Conv(width, 192, (7, 1))
        self.branch7x7dbl_1 = Conv(inputs, width, 1)
        self.branch7x7dbl_2 = Conv(width, width, (7, 1))
        self.branch7x7dbl_3 = Conv(width, width, (1, 7))
        self.branch7x7dbl_4 = Conv(width, width, (7, 1))
        self.branch7x7dbl_5 = Conv(width, 192, (1, 7))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], 1)


class Reduce17(nn.Module):
    """Mixed_7a: [N, C, 17, 17] -> [N, 512 + C, 8, 8]."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3_1 = Conv(inputs, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, 2, valid=True)
        self.branch7x7x3_1 = Conv(inputs, 192, 1)
        self.branch7x7x3_2 = Conv(192, 192, (1, 7))
        self.branch7x7x3_3 = Conv(192, 192, (7, 1))
        self.branch7x7x3_4 = Conv(192, 192, 3, 2, valid=True)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), max_pool2d(x, 3, 2)], 1)


class Block8(nn.Module):
    """Mixed_7: [N, C, 8, 8] -> [N, 2048, 8, 8]; the last one pools by maximum, a peculiarity of the 2015 graph."""

    def __init__(self, inputs: int, *, maximum: bool):
        super().__init__()
        self.maximum = maximum
        self.branch1x1 = Conv(inputs, 320, 1)
        self.branch3x3_1 = Conv(inputs, 384, 1)
        self.branch3x3_2a = Conv(384, 384, (1, 3))
        self.branch3x3_2b = Conv(384, 384, (3, 1))
        self.branch3x3dbl_1 = Conv(inputs, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3)
        self.branch3x3dbl_3a = Conv(384, 384, (1, 3))
        self.branch3x3dbl_3b = Conv(384, 384, (3, 1))
        self.branch_pool = Conv(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = max_pool2d(x, 3, 1, 1) if self.maximum else _average(x)
        parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(parts, 1)


class Inception(nn.Module):
    """RGB uint8 [N, 3, H, W] -> pooled features [N, 2048].

    Args:
        resize: (float images [N, 3, H, W] in [0, 255], size) -> the same at size x size.
    """

    def __init__(self, resize: Resize = tf1_bilinear) -> None:
        super().__init__()
        self.resize = resize
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2, valid=True)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, valid=True)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, valid=True)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = Block35(192, 32), Block35(256, 64), Block35(288, 64)
        self.Mixed_6a = Reduce35(288)
        self.Mixed_6b, self.Mixed_6c = Block17(128), Block17(160)
        self.Mixed_6d, self.Mixed_6e = Block17(160), Block17(192)
        self.Mixed_7a = Reduce17(768)
        self.Mixed_7b, self.Mixed_7c = Block8(1280, maximum=False), Block8(2048, maximum=True)

    def forward(self, images: Tensor) -> Tensor:
        x = (self.resize(images.float(), SIZE) - 128) / 128
        return self.pooled(x.contiguous(memory_format=torch.channels_last))

    def pooled(self, x: Tensor) -> Tensor:
        """Return features [N, 2048] of resized images [N, 3, 299, 299] in [-1, 1)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))


def build(tensors: Mapping[str, Tensor], resize: Resize = tf1_bilinear) -> Inception:
    """Return the network with the given weights, whose names are pytorch-fid's: ``Mixed_5b.branch1x1.conv.weight``.

    Raises:
        EvaluationError: tensors are missing, too many or misshapen.
    """
    with torch.device("meta"):
        network = Inception(resize)
    try:
        network.load_state_dict(folded(tensors), assign=True)
    except (KeyError, RuntimeError) as error:
        why = " ".join(str(error).split())[:120]
        raise EvaluationError(f"These are not the weights of the 2015 Inception ({why}).") from error
    return network.requires_grad_(False).eval().to(memory_format=torch.channels_last)


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weight and bias of each convolution with its batch normalisation folded in, computed in float64."""
    result = {}
    for name in (key.removesuffix(".conv.weight") for key in tensors if key.endswith(".conv.weight")):
        scale = (tensors[f"{name}.bn.running_var"].double() + BATCH_NORM_EPS).rsqrt()
        shift = tensors[f"{name}.bn.bias"].double() - tensors[f"{name}.bn.running_mean"].double() * scale
        result[f"{name}.weight"] = (tensors[f"{name}.conv.weight"].double() * scale[:, None, None, None]).float()
        result[f"{name}.bias"] = shift.float()
    return result


def _average(x: Tensor) -> Tensor:
    return avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def extractor(argument: str = "", device: str | torch.device | None = None) -> FeatureExtractor:
    """Return the extractor of 2048 Inception features, its weights found as `zoo.metrics.inception_weights` says.

    Args:
        argument: "" for the resize of TensorFlow 1, which FID is defined on; "clean" for clean-fid's.

    Raises:
        EvaluationError: the weights are not to be had, or another argument was given.
    """
    from zoo.metrics.inception_weights import load, load_classifier

    if argument not in RESIZES:
        possible = "give 'inception' or 'inception:clean'"
        raise EvaluationError(f"features='inception:{argument}' is not possible: {possible}.")
    resize, called = RESIZES[argument]
    tensors, place = load(), torch.device(device or "cpu")
    network = build(tensors, resize).to(place)
    name = f"inception:{argument}" if argument else "inception"
    # Without its bias, as the graph has it and every Inception Score is computed.
    logits = Classifier(lambda: (load_classifier(), None))
    return FeatureExtractor(name, digest(tensors), f"{called}-{SIZE}", DIMENSIONS, network, place, logits)
