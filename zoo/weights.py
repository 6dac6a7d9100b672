"""Models from configurations and from model folders, and back: strict both ways.

Tensors keep plain keys (``generator.blocks.0.weight``); a network's moving average lies under ``averages.generator``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.errors import ConfigError, Unsupported, WeightsError, suggest
from zoo.images import to_bytes
from zoo.memory import installed
from zoo.registry import architecture as find_architecture
from zoo.registry import model_class
from zoo.storage import (
    GOLDEN_IMAGES,
    GOLDEN_PIXELS,
    GOLDEN_SEED,
    SCHEMA,
    Checkpoint,
    read,
    write_manifest,
)
from zoo.versions import versions

if TYPE_CHECKING:
    from zoo.model import Model, ModelConfig

LARGEST = 64 * 2**30      # bytes of parameters that a config may ask for


def build(
    architecture: str,
    config: Mapping[str, object],
    *,
    device: str | torch.device = "cpu",
    critic: Mapping[str, object] | None = None,
) -> Model:
    """Return a model with random weights, its size checked on the meta device before anything is allocated.

    Args:
        critic: settings of a projected discriminator in place of the architecture's own.

    Raises:
        ConfigError: a wrong or unknown setting, or a model larger than `LARGEST`.
    """
    cls = model_class(find_architecture(architecture), config.get("variant"))
    settings = validated(cls, architecture, config)
    with torch.device("meta"), _Undrawn():
        sketch = _dressed(cls(settings), critic)
    size = sum(tensor.numel() * tensor.element_size() for tensor in sketch.state_dict().values())
    real = torch.device(device).type != "meta"
    most = min(LARGEST, installed()) if real else LARGEST
    if size > most:
        raise ConfigError(
            f"{architecture}: this configuration needs {size / 2**30:.0f} GiB of weights, at most {most / 2**30:.0f} "
            "are possible: choose smaller settings."
        )
    if real:
        with torch.device(device):
            sketch = _dressed(cls(settings), critic)
    sketch.architecture = architecture
    return sketch


def _dressed(model: Model, critic: Mapping[str, object] | None) -> Model:
    if critic is None:
        return model
    from zoo.critics import attach

    return attach(model, critic)


class _Undrawn(TorchFunctionMode):
    """Lets initial draws do nothing: on tensors without memory some would only load torch's compiler, for seconds.

    Nor does the power iteration with which spectral norm begins multiply anything.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "trunc_normal_", "orthogonal_", "normalize"):
            return args[0] if args else kwargs["tensor"]
        if func is torch.mv:
            return args[0].new_empty(len(args[0]))
        return func(*args, **(kwargs or {}))


def validated(cls: type[Model], architecture: str, config: Mapping[str, object]) -> ModelConfig:
    """Return the architecture's own configuration object.

    Raises:
        ConfigError: with the first fault and what is possible.
    """
    possible = list(cls.Config.model_fields)
    for name in config:
        if name not in possible:
            near, all_of = suggest(name, possible), ", ".join(possible)
            raise ConfigError(f"{architecture} has no setting {name!r}.{near} It has: {all_of}.")
    try:
        return cls.Config(**dict[str, Any](config))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        given = f"{place}={_shown(first['input'])}" if place else "configuration"
        raise ConfigError(f"{architecture}: {given}: {first['msg'].removeprefix('Value error, ')}.") from error


def _shown(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except Exception:      # an integer of more digits than Python prints, an object that cannot show itself
        return f"a value of type {type(value).__name__}"


def save(model: Model, directory: str | Path, *, run: Mapping[str, Any] | None = None, half: bool = False) -> Path:
    """Write config.json, model.safetensors, README.md and manifest.json, and return the folder.

    Args:
        run: what run.json says, for the card and for the lineage.
        half: store floating tensors as float16, and only the average of a network that has one.

    Raises:
        WeightsError: a tensor holds a value that is not finite as it would be stored; nothing is written.
        OSError: the folder cannot be written, or the disk is full.
    """
    from zoo.cards import render

    folder = _folder(model, directory)
    tensors = _for_disk(model, half)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(described(model), indent=1) + "\n")
    write_tensors(tensors, folder)
    (folder / "README.md").write_text(render(model, run=run))
    write_manifest(folder, *golden_hash(load(folder, verify=False)))
    return folder


def described(model: Model) -> dict[str, Any]:
    """Return what config.json says of a model."""
    from zoo import critics

    return {
        "architecture": model.architecture,
        "config": model.config.model_dump(mode="json"),
        "schema_version": SCHEMA,
        "zoo_version": versions()["zoo"],
        "origin": model.origin,
        **({"absent": list(model.absent)} if model.absent else {}),
        **({"critic": critics.described(model)} if model.critic is not None else {}),
    }


def write_tensors(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write model.safetensors beside config.json, readable by whom that is.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    try:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    except SafetensorError as error:      # its own way to report a full disk
        raise OSError(str(error)) from error
    shutil.copymode(folder / "config.json", folder / "model.safetensors")      # safetensors lets the owner alone read


def _folder(model: Model, directory: str | Path) -> Path:
    from zoo.model import Model as Kind

    if not isinstance(model, Kind):
        raise WeightsError(f"{type(model).__name__} is no zoo model: make one with zoo.create or zoo.load.")
    if not isinstance(directory, str | Path):
        raise WeightsError(f"{_shown(directory)} is no folder to save in: give its path.")
    if os.path.lexists(directory) and not os.path.isdir(directory):
        raise WeightsError(f"{directory} is a file: give another folder to save in.")
    return Path(directory)


def golden_sample(model: Model) -> Tensor:
    """Return a few raw samples of a fixed seed: the same weights give the same ones."""
    count = GOLDEN_IMAGES if model.config.resolution <= GOLDEN_PIXELS else 1
    return model.sample(count, seed=GOLDEN_SEED, labels=model.each_class(count), clamp=False)


def golden_hash(model: Model) -> tuple[str, int]:
    """Return the sha256 of the golden sample as 8-bit images, and how many these are; "" for weights that make none."""
    try:
        images = golden_sample(model)
    except Unsupported:      # a discriminator or an encoder that came alone
        return "", 0
    if not bool(torch.isfinite(images).all()):
        raise WeightsError("The model's samples hold values that are not finite: it is broken and is not saved.")
    return hashlib.sha256(to_bytes(images).contiguous().numpy().tobytes()).hexdigest(), len(images)


def load(
    directory: str | Path,
    *,
    adapt: bool = False,
    device: str | torch.device | None = None,
    verify: bool = True,
    whole: Callable[[Checkpoint], Checkpoint] | None = None,
    **config: Any,
) -> Model:
    """Return the model of a folder; strict unless `adapt`.

    Args:
        adapt: fit the weights to `config` (another resolution, channels, classes); `model.adapted` says how.
        whole: adds a delta to its parent, as `zoo.deltas.whole` does; None refuses folders that hold a delta.
        config: settings to change; needs `adapt` where tensors change shape.
    """
    from zoo.adaptation import adapted

    checkpoint = read(directory, verify=verify)
    if checkpoint.parent is not None:
        if whole is None:
            raise WeightsError(f"{directory} holds a delta alone: load it by name, as zoo.load('dir:{directory}').")
        checkpoint = whole(checkpoint)
    settings = {**checkpoint.config, **config}
    model = build(checkpoint.architecture, settings, device="meta", critic=checkpoint.critic)
    model.without(checkpoint.absent)
    averages = averaged_networks(model, checkpoint.tensors)
    model.follow(averages)
    tensors = checkpoint.tensors
    if adapt:
        fresh = build(checkpoint.architecture, settings, critic=checkpoint.critic).without(checkpoint.absent)
        tensors, model.adapted = adapted(fresh.follow(averages).state_dict(), tensors)
    check_fit(model.state_dict(), tensors, Path(directory) / "model.safetensors")
    assign(model, tensors)
    model.origin = dict(checkpoint.origin)
    if adapt:
        model.refit()
    return _placed(model, device) if device is not None else model


def assign(model: Model, tensors: Mapping[str, Tensor]) -> None:
    """Give a model that was built without memory its tensors, which fit."""
    # Clones: where a tensor lies in the file decides its alignment, and that the last bits of some matrix products.
    model.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
    model.requires_grad_(True)
    model.averages.requires_grad_(False)


def _placed(model: Model, device: str | torch.device) -> Model:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:      # torch raises either for a device that is not there
        cause = str(error).partition("\n")[0][:150]
        raise ConfigError(f"device={str(device)!r} cannot be used ({cause}): leave it out for the CPU.") from error


def check_fit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError unless both hold the same names with the same shapes and kinds."""
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    for names, fault in ((missing, "missing"), (extra, "unknown")):
        if names:
            raise WeightsError(
                f"{path.name}: {len(names)} tensors are {fault}, the first is {names[0]!r}: "
                "these are not the weights of this configuration; adapt=True fits weights to a changed one."
            )
    for name, tensor in wanted.items():
        if tensor.shape != given[name].shape:
            raise WeightsError(
                f"{path.name}: {name} is {list(given[name].shape)}, this configuration needs {list(tensor.shape)}: "
                "adapt=True fits weights to another resolution, channels or classes."
            )
        if tensor.dtype != given[name].dtype:
            raise WeightsError(f"{path.name}: {name} is {given[name].dtype}, expected {tensor.dtype}.")


def averaged_networks(model: Model, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the networks that have an average among the tensors; under any other name it is a tensor too many."""
    named = {name.split(".")[1] for name in tensors if name.startswith("averages.")}
    return tuple(sorted(named & set(model.networks())))


def _for_disk(model: Model, half: bool) -> dict[str, Tensor]:
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if half:      # small files: what `sample` uses is the average, so the live twin can go
        for name in [name for name in tensors if name.startswith("averages.")]:
            tensors[name.removeprefix("averages.")] = tensors.pop(name)
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{name} holds values that are not finite: this model is broken and is not saved.")
    # Clones: safetensors refuses tensors that share memory or lie in another order than they count.
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def lineage(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the origin of weights that a run trained: how long, how, on what, and from which parent.

    The parent's licence covers what was made from it. Folders of this machine are left out of the data's name.
    """
    from zoo.cards import public_name

    origin = {name: run[name] for name in ("kimg", "method", "faults") if name in run}
    origin["data"] = {**run["data"], "name": public_name(run["data"]["name"])}
    parent = run.get("parent") or {}
    if parent:
        origin["parent"] = {name: value for name, value in parent.items() if name != "parent"}
        if "license" in parent:
            origin["license"] = parent["license"]
    return origin


