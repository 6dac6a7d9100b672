"""Features of any timm model: its pooled output before the classifier.

``timm:NAME`` takes the model's own input size; ``timm:NAME@PIXELS`` another, which is cheaper for small images and is
a different extractor with different numbers. Where weights come from: `zoo.backbones`.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from zoo.backbones import backbone
from zoo.errors import EvaluationError, WeightsError
from zoo.metrics.features import FeatureExtractor, digest
from zoo.metrics.resizing import antialiased


class Backbone(nn.Module):
    """RGB uint8 [N, 3, H, W] -> pooled features [N, d], resized and normalised as the model was trained."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, cfg: dict[str, Any], size: int, mode: str):
        super().__init__()
        self.model, self.size, self.mode = model, size, mode
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(cfg[name]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = antialiased(images.float() / 255, self.size, self.mode)
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.model(x)
        return features


def extractor(argument: str, device: str | torch.device | None = None) -> FeatureExtractor:
    """Return the extractor of timm's model NAME, for an argument NAME or NAME@PIXELS.

    Raises:
        UnknownName: timm has no such model.
        EvaluationError: its weights are not to be had, or it does not take that size.
    """
    found = re.fullmatch(r"(?P<name>.+?)(?:@(?P<size>\d+))?", argument)
    if not found:
        raise EvaluationError("features='timm:' names no model: write 'timm:NAME', such as 'timm:resnet50'.")
    size = int(found["size"]) if found["size"] else None
    model = _model(found["name"], size)
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    size = size or int(cfg["input_size"][-1])
    mode = "bilinear" if cfg["interpolation"] == "bilinear" else "bicubic"
    place = torch.device(device or "cpu")
    model.requires_grad_(False).eval().to(memory_format=torch.channels_last)
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    network = Backbone(model, cfg, size, mode).to(place)
    return FeatureExtractor(
        f"timm:{argument}", digest(weights), f"{mode}-antialias-{size}", _dimensions(network, argument), network, place
    )


def _model(name: str, size: int | None) -> nn.Module:
    try:
        return backbone(name, size=size, num_classes=0)
    except WeightsError as error:
        raise EvaluationError(f"No features 'timm:{name}': {error} Or give 'pixels', which needs none.") from error


def _dimensions(network: Backbone, argument: str) -> int:
    with torch.inference_mode():
        try:
            features = network(torch.zeros(1, 3, 8, 8, dtype=torch.uint8, device=network.mean.device))
        except (RuntimeError, AssertionError, ValueError) as error:
            why = f"features='timm:{argument}' fails at {network.size} pixels: leave the size out."
            raise EvaluationError(why) from error
    if features.ndim != 2:
        raise EvaluationError(f"features='timm:{argument}' gives no pooled features: take another timm model.")
    return int(features.shape[1])
