"""What the modules of a pickled NVlabs network say of themselves: each keeps its settings as attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isclose, sqrt

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Instance, Tree

LINEAR = {"affine", "embed", "out", "skip"}      # modules without an activation


def walk(instance: Instance, prefix: str = "") -> Iterator[tuple[str, Instance]]:
    """Yield the modules within a pickled network and their paths, such as ``synthesis.b4``."""
    for name, child in (instance.state.get("_modules") or {}).items():
        if isinstance(child, Instance):
            yield f"{prefix}{name}", child
            yield from walk(child, f"{prefix}{name}.")


def module(file: str, modules: dict[str, Instance], path: str) -> Instance:
    """Return the module of this path, and refuse a network without it."""
    if path not in modules:
        raise WeightsError(f"{file}: module {path!r} is missing: the file is incomplete or of another format.")
    return modules[path]


def whole(file: str, path: str, module: Instance, name: str, low: int, high: int) -> int:
    """Return an attribute that is a whole number within bounds, and refuse any other."""
    value = module.state.get(name)
    if not isinstance(value, int) or not low <= value <= high:
        where = f"{path}.{name}".lstrip(".")
        raise WeightsError(f"{file}: {where} is {value!r:.60}: expected a number from {low} to {high}.")
    return value


def one(file: str, what: str, values: list[Tree]) -> Tree:
    """Return the value on which all modules agree."""
    if any(value != values[0] for value in values):
        raise WeightsError(f"{file}: {what} differs from module to module ({values!r:.80}), which is not supported.")
    return values[0]


def resolution_of(file: str, instance: Instance) -> int:
    """Return the height and width of a network's images, a power of two."""
    value = whole(file, "", instance, "img_resolution", 8, 2048)
    if value & (value - 1):
        raise WeightsError(f"{file}: img_resolution is {value}: only powers of two are supported.")
    return value


def clamp_of(file: str, modules: dict[str, Instance]) -> float | None:
    """Return the clamp of all convolutions, having made sure that each module works as ours does.

    Raises:
        WeightsError: a module has another activation, scale or clamp than StyleGAN2's.
    """
    clamps = []
    for path, module in modules.items():
        state, name = module.state, path.rpartition(".")[2]
        expected = "linear" if name in LINEAR else "lrelu"
        if (given := state.get("activation", expected)) != expected:
            raise WeightsError(f"{file}: {path}.activation is {given!r:.40}, only {expected} is supported.")
        _check_gain(file, path, state)
        if "conv_clamp" in state and name != "skip" and path != "b4.fromrgb":
            clamps.append(state["conv_clamp"])
        elif state.get("conv_clamp") is not None:
            raise WeightsError(f"{file}: {path}.conv_clamp is {state['conv_clamp']!r:.40}, only None is supported.")
    clamp: float | None = one(file, "conv_clamp", clamps)
    return clamp


def _check_gain(file: str, path: str, state: Mapping[str, Tree]) -> None:
    """Make sure that a layer is scaled as equalised learning rate does: by its rate and the root of its inputs."""
    weight = {**(state.get("_buffers") or {}), **(state.get("_parameters") or {})}.get("weight")
    gain, rate = state.get("weight_gain"), state.get("bias_gain", 1)
    if gain is None or not isinstance(weight, Tensor) or not weight.ndim:
        return
    if not isclose(gain, rate / sqrt(max(1, weight[:1].numel())), rel_tol=1e-4):
        raise WeightsError(f"{file}: {path}.weight_gain is {gain!r:.40}, which its inputs and rate do not give.")


def channels_of(instance: Instance) -> tuple[object, object]:
    """Return channel_base and channel_max as the constructor had them, or its defaults."""
    given = instance.state.get("_init_kwargs") or {}
    return given.get("channel_base", 32768), given.get("channel_max", 512)
