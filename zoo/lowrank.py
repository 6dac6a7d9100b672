"""Low-rank fine-tuning (Hu et al., 2021, arXiv:2106.09685, section 4.1): W = W0 + U V, where only U and V are trained.

U is [out, r] and V [r, rest] for a weight [out, ...] that is read as a matrix [out, rest]. U begins at zero, so that
training begins at W0 exactly. What is left of a training is a `Delta`: the factors of every weight, a small part of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from zoo.errors import ConfigError
from zoo.model import Model
from zoo.noise import Noise, key
from zoo.storage import digest

UP, DOWN = "lora_up", "lora_down"      # of a tensor in a delta's file, after its name and a dot


@dataclass
class Delta:
    """What a low-rank fine-tune changed of some networks, and what it must be added to.

    Args:
        networks: those that are trained by low-rank factors alone.
        replaced: those that are trained in full, which a delta does without.
        rank: the most columns of U.
        base: sha256 of the state of `networks` as training began, by `zoo.storage.digest`.
        buffers: theirs as training began, on the CPU.
        tensors: NAME.lora_up and NAME.lora_down; filled by `merge`.
    """

    networks: tuple[str, ...]
    replaced: tuple[str, ...]
    rank: int
    base: str
    buffers: dict[str, Tensor] = field(repr=False)
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)


class LowRank(nn.Module):
    """A parametrisation of torch: weight [out, ...] -> weight + U V, computed in the weight's own precision."""

    def __init__(self, weight: Tensor, rank: int, noise: Noise):
        """Draw V from N(0, 1 / r): a step of Adam on U then moves each weight about as far as one on the weight."""
        super().__init__()
        out, rest = weight.shape[0], weight[0].numel()
        r = min(rank, out, rest)
        self.lora_up = nn.Parameter(torch.zeros(out, r, device=weight.device))
        self.lora_down = nn.Parameter(noise.normal(r, rest).to(weight.device) / sqrt(r))

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.lora_up @ self.lora_down).view(weight.shape)


def merged(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Return weight + U V. The product is made in double precision, so that it is the same on every machine."""
    return weight + (up.double() @ down.double()).view(weight.shape).to(weight)


def attach(model: Model, networks: tuple[str, ...], replaced: tuple[str, ...], rank: int) -> None:
    """Have networks and their averages trained by low-rank factors; both begin at the average, which samples come from.

    Args:
        networks: all that are trained so.
        replaced: networks that are trained in full beside them.

    Raises:
        ConfigError: they are trained so already.
    """
    if model.delta is not None and not model.delta.tensors:
        raise ConfigError("This model is being trained by low-rank factors already: load it again.")
    state = {
        f"{network}.{name}": value.detach().clone()
        for network in networks
        for name, value in model.averaged(network).state_dict().items()
    }
    kept = {f"{network}.{name}" for network in networks for name, _ in model.averaged(network).named_buffers()}
    model.delta = Delta(networks, replaced, rank, digest(state), {n: v.cpu() for n, v in state.items() if n in kept})
    for network in networks:
        live = model.get_submodule(network)
        if network in model.averages:
            live.load_state_dict(model.averages[network].state_dict())
            _factorise(model.averages[network], network, rank)
        _factorise(live, network, rank)
    model.averages.requires_grad_(False)


def _factorise(network: nn.Module, seed: str, rank: int) -> None:
    for path, module in list(network.named_modules()):
        if parametrize.is_parametrized(module) or isinstance(module, parametrize.ParametrizationList | LowRank):
            continue
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.ndim > 1:
                factors = LowRank(weight, rank, Noise(key("lora", seed, path, name)))
                parametrize.register_parametrization(module, name, factors)


def fixed(network: nn.Module) -> list[str]:
    """Return the names of all parameters of a network but the low-rank factors."""
    return [name for name, _ in network.named_parameters() if name.rpartition(".")[2] not in (UP, DOWN)]


@torch.no_grad()
def merge(model: Model) -> None:
    """Add the factors to the weights, so that the model is a plain one again, and keep them in `model.delta`."""
    delta = model.delta
    if delta is None or delta.tensors:
        return
    for network in delta.networks:
        average, live = model.averaged(network), model.get_submodule(network)
        factors = _merge(average)
        if average is not live:
            _merge(live)
        delta.tensors |= {f"{network}.{name}": value for name, value in factors.items()}


def moved_buffers(model: Model) -> dict[str, Tensor]:
    """Return the buffers of the networks of a model's delta, such as running statistics, that are not as they were."""
    assert model.delta is not None
    now = {
        f"{network}.{name}": value.detach().cpu()
        for network in model.delta.networks
        for name, value in model.averaged(network).state_dict().items()
    }
    return {name: now[name].clone() for name, kept in model.delta.buffers.items() if not torch.equal(kept, now[name])}


def _merge(network: nn.Module) -> dict[str, Tensor]:
    """Make a network plain and return NAME.lora_up and NAME.lora_down of its weights."""
    found: dict[str, Tensor] = {}
    for path, module in list(network.named_modules()):
        if not parametrize.is_parametrized(module):
            continue
        lists = cast("nn.ModuleDict", module.parametrizations)
        for name, held in list(lists.items()):
            factors = next((each for each in cast("nn.ModuleList", held) if isinstance(each, LowRank)), None)
            if factors is None:
                continue
            up, down = factors.lora_up.detach().cpu().clone(), factors.lora_down.detach().cpu().clone()
            weight = merged(cast("Tensor", held.original).detach(), factors.lora_up, factors.lora_down)
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
            module.get_parameter(name).copy_(weight)
            full = f"{path}.{name}" if path else name
            found |= {f"{full}.{UP}": up, f"{full}.{DOWN}": down}
    return found
