"""Relaxed realism (Ojha et al., 2021, arXiv:2104.06820, section 3.2): whole images are judged near a few latents alone.

With few reals a critic of whole images knows each of them, and a generator that deceives it everywhere ends up with
copies. So it judges the fakes of latents near a few anchors, which stay the same; the fakes of any latent are judged by
their patches. The critic of patches is the discriminator itself up to an inner layer, whose every place a 1x1
convolution gives a logit (`Readout`). It is part of the discriminator while that trains, and let go as training ends.

Every turn adds both losses up, as the paper's objective does, each on as many fakes as the batch has images: a step
costs about two. The choice of the layer and the convolution's start at zero are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from zoo.adversarial import DiscriminatorLoss, GeneratorLoss
from zoo.critics import NETWORK
from zoo.errors import ConfigError, Unsupported
from zoo.model import Model
from zoo.noise import Noise, key
from zoo.packing import Packed
from zoo.parts import PartLoss, Together
from zoo.recipe import Batch, Loss, Phase, Recipe, Terms
from zoo.transfer.method import GENERATOR
from zoo.transfer.source import Source
from zoo.transfer.structure import captured, in_evaluation, parts, statistics_kept

READOUT = "patch_readout"      # the discriminator's submodule meanwhile
# What a weight of the readout moves by in a step: it has some hundred of them to learn in, where the layers before it
# had a whole training. At most so many times the recipe's learning rate, which slows it too where it is lower.
RATE, MOST = 2e-3, 10.0


class Readout(nn.Module):
    """Features [N, channels, h, w] -> logits [N, h w], one for each place: all 0 until it has learnt something.

    Args:
        gain: of the logits. Adam moves every weight by the learning rate, so a larger gain is a faster pace.
    """

    def __init__(self, channels: int, gain: float):
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 1)
        self.gain = gain
        for value in self.conv.parameters():
            nn.init.zeros_(value)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.gain * self.conv(features)
        return logits.flatten(1)


@dataclass(frozen=True)
class Layer:
    """Where a critic's patches are judged: a submodule, the channels of its output and its places, h w."""

    name: str
    channels: int
    places: int


@dataclass(frozen=True)
class Near:
    """A loss on whole images, whose latents are an anchor, drawn for each row, plus radius times normal noise.

    A row keeps its anchor for the whole loss, so styles that are mixed from two latents stay near it too. Statistics
    that the generator keeps follow latents from anywhere alone, as samples are made of these.

    Args:
        anchors: a tensor "z" [k, ...].
    """

    loss: Loss
    anchors: Source
    radius: float

    def __call__(self, model: Model, batch: Batch) -> Terms:
        anchors, rows = self.anchors.on(batch.images.device)["z"], dict[int, Tensor]()

        def latent(n: int, noise: Noise, psi: float = 1.0) -> Tensor:
            if n not in rows:
                rows[n] = noise.integers(len(anchors), n)
            return psi * (anchors[rows[n]] + self.radius * noise.normal(n, *anchors.shape[1:]))

        # An attribute of this model goes before its class's method: whoever draws latents for the loss draws these.
        vars(model)["latent"] = latent
        try:
            with statistics_kept(model.get_submodule(GENERATOR)):
                return self.loss(model, batch)
        finally:
            del vars(model)["latent"]


@dataclass(frozen=True)
class Patchwise:
    """A turn's adversarial loss with a discriminator that judges patches; its terms are named `patches_...`.

    Args:
        layer: of the discriminator, whose features patches are judged by.
        moves: whether the generator learns. What its turn watches, such as the mean style, is kept by its name.
    """

    loss: Loss
    layer: str
    weight: float
    moves: bool

    def __call__(self, model: Model, batch: Batch) -> Terms:
        with by_patches(model.get_submodule(NETWORK), self.layer):
            terms = self.loss(model, batch)
        watch = terms.watch if self.moves else {f"patches_{name}": value for name, value in terms.watch.items()}
        return Terms({f"patches_{name}": self.weight * value for name, value in terms.minimise.items()}, watch)


@contextmanager
def by_patches(critic: nn.Module, layer: str) -> Iterator[None]:
    """Have a critic with a `Readout` return the logits [N, places] of patches meanwhile."""

    def judge(module: nn.Module, inputs: object, output: object) -> Tensor:
        features = seen.pop(layer, None)
        if not isinstance(features, Tensor):
            raise ConfigError(f"The discriminator's {layer} saw no features to judge patches by: take cdc:anchors=0.")
        logits: Tensor = critic.get_submodule(READOUT)(features)
        return logits

    # A compiled forward may know nothing of hooks that came after it was compiled.
    with torch.compiler.set_stance("force_eager"), statistics_kept(critic), captured(critic, (layer,)) as seen:
        hook = critic.register_forward_hook(judge)
        try:
            yield
        finally:
            hook.remove()


def relaxed(
    model: Model, recipe: Recipe, *, anchors: int, radius: float, weight: float, depth: float
) -> Recipe:
    """Return the recipe with whole images judged near anchors and patches everywhere, and give the model a readout.

    Further terms of the generator's turn, such as mode seeking, are of latents from anywhere.

    Args:
        anchors: how many; the same in every run of an architecture's latents.
        radius: standard deviation of the latents around an anchor.
        weight: of the losses on patches.
        depth: share of the discriminator's blocks, from the image, after which patches are judged; rounded down.

    Raises:
        Unsupported: no turn trains a discriminator, or none of its layers sees places.
    """
    if not any(NETWORK in phase.trains for phase in recipe.phases):
        raise Unsupported(f"{model.architecture} trains no discriminator that could judge patches: take cdc:anchors=0.")
    layer = judging_layer(model, depth)
    for critic in _critics(model):
        critic.add_module(READOUT, Readout(layer.channels, min(MOST, RATE / recipe.lr)).to(model.device))
    z = Source({"z": model.latent(anchors, Noise(key("anchors")))})
    said: dict[str, float | str] = {"cdc_anchors": anchors, "cdc_radius": radius}
    said |= {"cdc_patches": weight, "cdc_layer": layer.name}
    return replace(recipe, phases=tuple(
        replace(phase, loss=loss, settings={**phase.settings, **said}) if loss is not phase.loss else phase
        for phase in recipe.phases for loss in [_relaxed(recipe, phase, Near(phase.loss, z, radius), layer, weight)]
    ))  # fmt: skip


def _relaxed(recipe: Recipe, phase: Phase, whole: Near, layer: Layer, weight: float) -> Loss:
    moves = GENERATOR in phase.trains
    if not moves and NETWORK not in phase.trains:
        return phase.loss
    player = GENERATOR if moves else NETWORK
    if phase.every > min(each.every for each in recipe.phases if player in each.trains):      # a penalty, mostly
        return phase.loss if moves else whole
    alone, rest = apart(phase.loss, layer.places)
    patches = Patchwise(alone, layer.name, weight, moves)
    if not moves:
        return Together(whole, patches)
    both = Together(replace(whole, loss=alone), patches)
    return both if rest is None else Together(both, rest)


def apart(loss: Loss, places: int) -> tuple[Loss, Loss | None]:
    """Return a turn's adversarial loss alone, and a loss of all else that the generator's turn minimises.

    Penalties within the discriminator's loss are divided by the number of places: they take the gradient of the sum of
    an image's logits, and each place has one.
    """
    if isinstance(loss, Together):
        own, rest = apart(loss.loss, places)
        return own, loss.other if rest is None else Together(rest, loss.other)
    if isinstance(loss, GeneratorLoss):
        return replace(loss, parts=()), PartLoss(loss.parts, loss.make, moves=True) if loss.parts else None
    if isinstance(loss, DiscriminatorLoss):
        return replace(loss, parts=(), gamma=(loss.gamma[0] / places, loss.gamma[1] / places)), None
    if is_dataclass(loss) and hasattr(loss, "loss"):
        wrapper = cast("Any", loss)
        own, rest = apart(wrapper.loss, places)
        return replace(wrapper, loss=own), None if rest is None else replace(wrapper, loss=rest)
    return loss, None


def judging_layer(model: Model, depth: float) -> Layer:
    """Return the layer of a model's discriminator after a share of its blocks, rounded down, but at least one.

    Blocks are those whose features lie in places; what they are is seen from a blank image.

    Raises:
        Unsupported: there is none.
    """
    critic, classes, size = model.get_submodule(NETWORK), model.config.num_classes, model.config.resolution
    names = parts(critic).blocks
    n = critic.m if isinstance(critic, Packed) else 1
    blank = torch.zeros(n, model.config.channels, size, size, device=model.device)
    labels = torch.zeros(n, classes, device=model.device) if classes else None
    with in_evaluation(critic), torch.no_grad(), captured(critic, names) as seen:
        critic(blank, labels)
    maps = [
        Layer(name, output.shape[1], output.shape[2] * output.shape[3])
        for name in names
        if isinstance(output := seen.get(name), Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1
    ]
    if not maps:
        raise Unsupported(f"No block of {type(critic).__name__} sees places of an image: take cdc:anchors=0.")
    return maps[max(1, int(depth * len(maps))) - 1]


def let_go(model: Model) -> None:
    """Take the readout away again, if there is one: as a training ends, or of one that was cut short."""
    for critic in _critics(model) if hasattr(model, NETWORK) else []:
        if READOUT in dict(critic.named_children()):
            delattr(critic, READOUT)


def _critics(model: Model) -> list[nn.Module]:
    averages = [model.averages[NETWORK]] if NETWORK in model.averages else []
    return [model.get_submodule(NETWORK), *averages]
