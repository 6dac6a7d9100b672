"""Features of any timm model: its pooled output before the classifier, or a CLIP's projection of it.

``timm:NAME`` takes the model's own input size; ``timm:NAME@PIXELS`` another, which is cheaper for small images and is
a different extractor with different numbers. ``clip:NAME`` keeps the last layer, which projects an image to where
texts are: what CLIP papers compare. Where weights come from: `zoo.backbones`.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.backbones import backbone, projects
from zoo.errors import EvaluationError, WeightsError
from zoo.metrics.features import Classifier, FeatureExtractor, digest
from zoo.metrics.resizing import antialiased

CLIP = "vit_large_patch14_clip_quickgelu_336.openai"      # of the paper on CMMD; without "quickgelu" it is another net
SAME = 1e-3                                               # of logits' spread: a difference that is but rounding


class Backbone(nn.Module):
    """RGB uint8 [N, 3, H, W] -> features [N, d], resized and normalised as the model was trained."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, cfg: dict[str, Any], size: int, mode: str):
        super().__init__()
        self.model, self.cfg, self.size, self.mode = model, cfg, size, mode
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(cfg[name]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = antialiased(images.float() / 255, self.size, self.mode)
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        features: Tensor = self.model(x)
        return features


def extractor(argument: str, device: str | torch.device | None = None) -> FeatureExtractor:
    """Return the extractor of pooled features of timm's model NAME, for an argument NAME or NAME@PIXELS.

    Raises:
        UnknownName: timm has no such model.
        EvaluationError: its weights are not to be had, or it does not take that size.
    """
    return _extractor("timm", argument, device, num_classes=0)


def clip(argument: str, device: str | torch.device | None = None) -> FeatureExtractor:
    """Return the extractor of the projection of timm's CLIP NAME, for an argument NAME or NAME@PIXELS.

    Raises:
        UnknownName: timm has no such model.
        EvaluationError: it projects nothing; or as `extractor`.
    """
    return _extractor("clip", argument, device)


def _extractor(kind: str, argument: str, device: str | torch.device | None, **options: Any) -> FeatureExtractor:
    found = re.fullmatch(r"(?P<name>.+?)(?:@(?P<size>\d+))?", argument)
    if not found:
        such = CLIP if kind == "clip" else "resnet50"
        raise EvaluationError(f"features='{kind}:' names no model: write '{kind}:NAME', such as '{kind}:{such}'.")
    name, size = found["name"], int(found["size"]) if found["size"] else None
    if kind == "clip" and not projects(name):
        raise EvaluationError(f"timm's {name!r} has no projection to texts: give 'timm:{name}', or say 'clip:{CLIP}'.")
    model = _model(kind, name, size, **options)
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    pixels = size or int(cfg["input_size"][-1])
    mode = "bilinear" if cfg["interpolation"] == "bilinear" else "bicubic"
    place = torch.device(device or "cpu")
    weights = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    network = Backbone(model, cfg, pixels, mode).to(place)
    logits = None
    if kind == "timm" and cfg["num_classes"] and not projects(name):
        logits = Classifier(partial(_classifier, name, size, network))
    dimensions, resize = _dimensions(network, f"{kind}:{argument}"), f"{mode}-antialias-{pixels}"
    return FeatureExtractor(f"{kind}:{argument}", digest(weights), resize, dimensions, network, place, logits)


def _model(kind: str, name: str, size: int | None, **options: Any) -> nn.Module:
    try:
        model = backbone(name, size=size, **options)
    except WeightsError as error:
        raise EvaluationError(f"No features '{kind}:{name}': {error} Or give 'pixels', which needs none.") from error
    return model.requires_grad_(False).eval().to(memory_format=torch.channels_last)


def _classifier(name: str, size: int | None, network: Backbone) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of the model's classifier, after a look whether it takes these features.

    Raises:
        EvaluationError: it does not.
    """
    whole = _model("timm", name, size).to(network.mean.device)
    layer: Any = whole.get_classifier()  # type: ignore[operator]
    noise = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    noise = noise.to(network.mean.device)
    with torch.inference_mode():
        features = network(noise)
        expected = Backbone(whole, network.cfg, network.size, network.mode).to(noise.device)(noise)
        if isinstance(layer, nn.Linear) and layer.in_features == features.shape[1]:
            logits = layer(features)
            if logits.shape == expected.shape and float((logits - expected).abs().max() / expected.std()) < SAME:
                return layer.weight.detach(), layer.bias
    raise EvaluationError(f"The classifier of timm's {name!r} is no linear layer on its features: take another model.")


def _dimensions(network: Backbone, name: str) -> int:
    with torch.inference_mode():
        try:
            features = network(torch.zeros(1, 3, 8, 8, dtype=torch.uint8, device=network.mean.device))
        except (RuntimeError, AssertionError, ValueError) as error:
            why = f"features='{name}' fails at {network.size} pixels: leave the size out."
            raise EvaluationError(why) from error
    if features.ndim != 2:
        raise EvaluationError(f"features='{name}' gives no pooled features: take another timm model.")
    return int(features.shape[1])
