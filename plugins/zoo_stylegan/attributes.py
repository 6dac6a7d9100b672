"""What the modules of a pickled NVlabs network say of themselves: each keeps its settings as attributes."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose, sqrt

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Instance, Tree, held

LINEAR = {"affine", "embed", "out", "skip"}      # modules without an activation


def walk(instance: Instance, prefix: str = "") -> Iterator[tuple[str, Instance]]:
    """Yield the modules within a pickled network and their paths, such as ``synthesis.b4``."""
    for name, child in held(instance, "_modules").items():
        if isinstance(child, Instance):
            yield f"{prefix}{name}", child
            yield from walk(child, f"{prefix}{name}.")


def module(place: str, modules: dict[str, Instance], path: str) -> Instance:
    """Return the module of this path, and refuse a network without it."""
    if path not in modules:
        raise WeightsError(f"{place}: module {path!r} is missing: the file is incomplete or of another format.")
    return modules[path]


def whole(place: str, path: str, module: Instance, name: str, low: int, high: int) -> int:
    """Return an attribute that is a whole number within bounds, and refuse any other."""
    value = module.state.get(name)
    if not isinstance(value, int) or not low <= value <= high:
        where = f"{path}.{name}".lstrip(".")
        raise WeightsError(f"{place}: {where} is {value!r:.60}: expected a number from {low} to {high}.")
    return value


def one(place: str, what: str, values: list[Tree]) -> Tree:
    """Return the value on which all modules agree."""
    if any(value != values[0] for value in values):
        raise WeightsError(f"{place}: {what} differs from module to module ({values!r:.80}), which is not supported.")
    return values[0]


def resolution_of(place: str, instance: Instance) -> int:
    """Return the height and width of a network's images, a power of two."""
    value = whole(place, "", instance, "img_resolution", 8, 2048)
    if value & (value - 1):
        raise WeightsError(f"{place}: img_resolution is {value}: only powers of two are supported.")
    return value


def clamp_of(place: str, modules: dict[str, Instance]) -> float | None:
    """Return the clamp of all convolutions, having made sure that each module works as ours does.

    Raises:
        WeightsError: a module has another activation, scale or clamp than StyleGAN2's.
    """
    clamps = []
    for path, module in modules.items():
        state, name = module.state, path.rpartition(".")[2]
        expected = "linear" if name in LINEAR else "lrelu"
        if (given := state.get("activation", expected)) != expected:
            raise WeightsError(f"{place}: {path}.activation is {given!r:.40}, only {expected} is supported.")
        _check_gain(place, path, module)
        if "conv_clamp" in state and name != "skip" and path != "b4.fromrgb":
            clamps.append(state["conv_clamp"])
        elif state.get("conv_clamp") is not None:
            raise WeightsError(f"{place}: {path}.conv_clamp is {state['conv_clamp']!r:.40}, only None is supported.")
    clamp: float | None = one(place, "conv_clamp", clamps)
    return clamp


def _check_gain(place: str, path: str, module: Instance) -> None:
    """Make sure that a layer is scaled as equalised learning rate does: by its rate and the root of its inputs."""
    weight = {**held(module, "_buffers"), **held(module, "_parameters")}.get("weight")
    gain, rate = module.state.get("weight_gain"), module.state.get("bias_gain", 1)
    if gain is None or not isinstance(weight, Tensor) or not weight.ndim:
        return
    numbers = isinstance(gain, int | float) and isinstance(rate, int | float)
    if not numbers or not isclose(gain, rate / sqrt(max(1, weight[:1].numel())), rel_tol=1e-4):
        raise WeightsError(f"{place}: {path}.weight_gain is {gain!r:.40}, which its inputs and rate do not give.")


def channels_of(instance: Instance) -> tuple[object, object]:
    """Return channel_base and channel_max as the constructor had them, or its defaults."""
    given = held(instance, "_init_kwargs")
    return given.get("channel_base", 32768), given.get("channel_max", 512)
