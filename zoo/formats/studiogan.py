"""The files of a StudioGAN run: which of them to take, which network each holds, and how its layers are stored.

A run's folder holds ``model=ROLE-WHEN-weights-step=N.pth``: ROLE is G, G_ema or D, WHEN is best or current. Each is a
dictionary, with the network under "state_dict" and the state of the run beside it (src/utils/ckpt.py and src/worker.py
in POSTECH-CVLab/PyTorch-StudioGAN, MIT licence). None says what the network is: that is read off its tensors, and the
activation, which leaves no trace, is taken to be the ReLU of all published configurations.

Discriminators with a projection head (PD) give its logits. With the other heads of published networks (W/O, AC, 2C,
D2DCE, with TAC or ADC or without) the logit does not depend on the class, and the classifier beside it is left out. MH
and MD heads, which give a logit for each class, and InfoGAN are refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Part, Source, Tree, state_dict

NAME = re.compile(r"model=(G|G_ema|D)-(best|current)-weights-step=(\d+)\.\w+")      # role, when, step
FILES = (NAME.pattern,)
PREFERRED = ("best", "current", "")             # "": a file that was given another name
ASIDE = r"(linear2|linear_mi|embedding|embedding_mi)\..*"      # classifiers beside the logit, embeddings, proxies
ROLES = {"G": "a generator", "G_ema": "an averaged generator", "D": "a discriminator"}


@dataclass(frozen=True)
class _File:
    name: str
    tensors: Mapping[str, Tensor]
    role: str                                   # G, G_ema or D
    when: str
    step: str


def tensors_of(tree: Tree) -> dict[str, Tensor] | None:
    """Return the network's tensors of one file, without the prefix that parallel training adds, or None."""
    inside = tree.get("state_dict") if isinstance(tree, dict) and "state_dict" in tree else tree
    found = state_dict(inside)
    if found is not None and all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): tensor for name, tensor in found.items()}
    return found


def holds(source: Source, *kinds: tuple[str, ...]) -> bool:
    """Whether each file has tensors whose names start with all that one of the kinds of network has."""
    return bool(source.files) and all(
        (tensors := tensors_of(tree)) is not None
        and any(all(any(name.startswith(start) for name in tensors) for start in starts) for starts in kinds)
        for tree in source.files.values()
    )


def networks(source: Source) -> dict[str, Network]:
    """Return where it goes -> network, for the files that belong together; the best ones where there is a choice.

    A live and an averaged generator become "generator" and "averages.generator", a lone one of either "generator".

    Raises:
        WeightsError: a file holds no network, or several could be meant.
    """
    choices: dict[str, list[_File]] = defaultdict(list)
    for name, tree in source.files.items():
        file = _file(name, tree)
        choices[file.role].append(file)
    chosen = {role: _choose(source, role, files) for role, files in choices.items()}
    steps = {file.step for file in chosen.values() if file.step}
    if len(steps) > 1:
        listed = ", ".join(file.name for file in chosen.values())
        raise WeightsError(f"{source.path}: {listed} are of different steps: give files of one step.")
    live, average = chosen.get("G"), chosen.get("G_ema")
    places = {"generator": live or average, "discriminator": chosen.get("D")}
    if live and average:
        places["averages.generator"] = average
    return {into: Network(file.name, file.tensors, into) for into, file in places.items() if file}


def _file(name: str, tree: Tree) -> _File:
    tensors = tensors_of(tree)
    if tensors is None:
        raise WeightsError(f"{name}: there is no network under 'state_dict': no file of StudioGAN, or a damaged one.")
    match = NAME.fullmatch(name)
    said, when, step = match.groups() if match else ("", "", "")
    judges = any(each.startswith("linear1.") for each in tensors)
    role = "D" if judges else "G_ema" if said == "G_ema" else "G"
    return _File(name, tensors, role, when, step)


def _choose(source: Source, role: str, files: list[_File]) -> _File:
    for when in PREFERRED:
        if meant := [file for file in files if file.when == when]:
            if len(meant) == 1:
                return meant[0]
            names = ", ".join(sorted(file.name for file in meant))
            raise WeightsError(f"{source.path}: {names} are each {ROLES[role]}: give a folder with one.")
    raise AssertionError(f"no file is {role}")


class Network:
    """The tensors of one file, on their way to the network `into`; a layer's weight may have spectral norm.

    Spectral norm is that of torch.nn.utils.spectral_norm: for the layer X the file holds X.weight_orig, X.weight_u and
    X.weight_v, and evaluation divides by u^T W v.
    """

    ours = ("weight", "u", "v")                 # what our layers call the three

    def __init__(self, file: str, tensors: Mapping[str, Tensor], into: str):
        self.part = Part(file, tensors, into)
        self.file = file
        self.spectral = any(name.endswith(".weight_orig") for name in tensors)
        if info := next((name for name in tensors if name.startswith("info_")), None):
            raise WeightsError(f"{file}: tensor {info!r} belongs to an InfoGAN, which is not supported.")

    def __contains__(self, layer: str) -> bool:
        return any(f"{layer}.{end}" in self.part for end in ("weight", "weight_orig"))

    def weight(self, layer: str) -> str:
        """Return what the file calls a layer's weight."""
        return f"{layer}.weight_orig" if self.spectral else f"{layer}.weight"

    def size(self, layer: str, axis: int, *, plain: bool = False) -> int:
        """Return one size of a layer's weight; `plain` ones have no spectral norm.

        Raises:
            WeightsError: the file lacks it, it has too few axes, or it is empty.
        """
        return self.part.size(f"{layer}.weight" if plain else self.weight(layer), axis)

    def places(self) -> list[int]:
        """Return the numbers of blocks, which stand in ``blocks.NUMBER.0``, from 0 on.

        Raises:
            WeightsError: one is missing.
        """
        found = {int(match[1]) for name in self.part if (match := re.match(r"blocks\.(\d{1,4})\.0\.", name))}
        if missing := sorted(set(range(max(found, default=0) + 1)) - found):
            raise WeightsError(f"{self.file}: tensors 'blocks.{missing[0]}.0...' are missing: the file is incomplete.")
        return sorted(found)

    def layer(self, name: str, to: str, *, bias: bool = True) -> None:
        """Move a layer as it is: weight, bias and the vectors of its spectral norm."""
        if self.spectral:
            for theirs, ours in zip(("orig", "u", "v"), self.ours, strict=True):
                self.part.move(f"{name}.weight_{theirs}", f"{to}.{ours}")
        else:
            self.part.move(f"{name}.weight", f"{to}.weight")
        if bias:
            self.part.move(f"{name}.bias", f"{to}.bias")

    def folded(
        self, name: str, to: str, change: Callable[[Tensor], Tensor] | None = None, *, bias: bool = True, axis: int = 0
    ) -> None:
        """Move a layer's weight divided by its norm, changed by `change`; `axis` is that of its outputs."""
        u, v = ((self.part.peek(f"{name}.weight_{end}") if self.spectral else None) for end in "uv")

        def fold(weight: Tensor) -> Tensor:
            if u is not None and v is not None:
                weight = weight / (u @ (weight.transpose(0, axis).flatten(1) @ v))
            return weight if change is None else change(weight)

        self.part.move(self.weight(name), f"{to}.weight", fold)
        self.part.leave(re.escape(f"{name}.weight_") + "[uv]")
        if bias:
            self.part.move(f"{name}.bias", f"{to}.bias")

    def projects(self) -> bool:
        """Return whether a discriminator's logit depends on the class, leaving out what does not serve it.

        Raises:
            WeightsError: it gives several logits.
        """
        if (logits := self.size("linear1", 0)) != 1:
            name = self.weight("linear1")
            raise WeightsError(f"{self.file}: tensor {name!r} gives {logits} logits (an MH or MD head): give one of 1.")
        if "linear2" in self:
            self.part.leave(ASIDE)
        return "embedding" in self and "linear2" not in self

    def classes(self) -> int:
        """Return how many classes a discriminator's head knows; twice as many for an ADC classifier, 0 without any."""
        known = [each for each in ("embedding", "linear2") if each in self]
        return self.size(known[0], 0) if known else 0

    def batch_norm(self, name: str, to: str) -> None:
        """Move a batch norm of ours that is torch's own."""
        for each in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            self.part.move(f"{name}.{each}", f"{to}.{each}")
