"""What a fine-tune remembers of its parent: copies of tensors, which belong to no model and are never saved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zoo.model import Model
from zoo.storage import digest


class Source:
    """Named tensors as they were when the fine-tune began, on whatever device they are asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self._held = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.digest = digest(self._held)[:16]      # recorded with the recipe: a resumed run must have the same parent

    def on(self, device: torch.device) -> dict[str, Tensor]:
        """Return name -> tensor on a device; the first call moves them there."""
        if any(tensor.device != device for tensor in self._held.values()):
            self._held = {name: tensor.to(device) for name, tensor in self._held.items()}
        return self._held


def learnt(model: Model, networks: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """Return the parameters of networks that hold what the parent learnt: not fresh, and not re-initialised."""
    return {
        f"{network}.{name}": parameter
        for network in networks if network not in model.fresh
        for name, parameter in model.get_submodule(network).named_parameters()
        if not model.adapted.get(f"{network}.{name}", "").startswith("re-initialised")
    }  # fmt: skip
