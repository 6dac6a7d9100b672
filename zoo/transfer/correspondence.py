"""Cross-domain correspondence (Ojha et al., 2021, arXiv:2104.06820): what was alike stays alike.

For a batch of latents, the generator's features in each block give every latent i a distribution over the others j:
y_i = softmax_j(cos(features_i, features_j)) (eq. 1). The loss is KL(y_i of the generator || y_i of the parent) (eq. 2).

The paper's other half, who judges which fakes, is in `zoo.transfer.realism`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from zoo.additions.contract import Positive, Share
from zoo.model import Model
from zoo.parts import Together
from zoo.recipe import Batch, Recipe, Terms
from zoo.transfer.method import GENERATOR, Method, generator_of
from zoo.transfer.realism import let_go, relaxed
from zoo.transfer.source import Source
from zoo.transfer.structure import captured, drawing_parts, in_evaluation


def log_similarities(features: Tensor) -> Tensor:
    """Return log softmax over the others of the cosines between rows: features [N, ...] -> [N, N - 1]."""
    rows = nn.functional.normalize(features.float().flatten(1), dim=1)
    n = len(rows)
    others = ~torch.eye(n, dtype=torch.bool, device=rows.device)
    with torch.autocast(rows.device.type, enabled=False):      # what is compared differs in the last digits
        return (rows @ rows.T)[others].view(n, n - 1).log_softmax(1)


def correspondence(target: Sequence[Tensor], source: Sequence[Tensor]) -> Tensor:
    """Return the mean of KL(target || source) / (N - 1) over blocks and latents, a scalar.

    Args:
        target, source: of each block its features [N, ...] of the same latents.
    """
    each = []
    for now, before in zip(target, source, strict=True):
        log_now, log_before = log_similarities(now), log_similarities(before)
        each.append((log_now.exp() * (log_now - log_before)).mean())
    return torch.stack(each).mean()


@dataclass(frozen=True)
class Correspondence:
    """weight times the mean of KL / (N - 1), for the generator; both generators are in evaluation, without noise.

    Args:
        images: N, the latents that are compared; of each process and micro-batch its own.
        source: the parent's generator: parameters and buffers by name.
        blocks: names of the submodules whose outputs are compared.
    """

    weight: float
    images: int
    source: Source
    blocks: tuple[str, ...]

    def __call__(self, model: Model, batch: Batch) -> Terms:
        generator = model.get_submodule(GENERATOR)
        z, classes = model.latent(self.images, batch.noise), model.config.num_classes
        drawn = batch.noise.integers(classes, self.images) if classes else None
        labels = None if drawn is None else nn.functional.one_hot(drawn, classes).float()
        with in_evaluation(generator), captured(generator, self.blocks) as seen:
            generator(z, labels)
            now = [seen[name] for name in self.blocks]
            with torch.no_grad():
                functional_call(generator, self.source.on(model.device), (z, labels))
            before = [seen[name] for name in self.blocks]
        distance = correspondence(now, before)
        return Terms({"cdc": self.weight * distance}, {"cdc_distance": distance.detach()})


def cdc(
    model: Model,
    recipe: Recipe,
    *,
    weight: Positive = 1000.0,
    images: Annotated[int, Field(ge=2, le=256)] = 4,
    anchors: Annotated[int, Field(ge=0, le=10_000)] = 10,
    radius: Positive = 0.05,
    patch_weight: Positive = 1.0,
    patch_depth: Share = 0.5,
) -> Recipe:
    """Keep how alike the generator's features of different latents are as the parent has it, and relax realism.

    Args:
        weight: of the mean; the paper's experiments take 1000.
        images: latents that are compared at each step.
        anchors: latents near which whole images are judged; the paper takes as many as there are images, ten. 0: whole
            images of all latents are judged, and no patches.
        radius: standard deviation of the latents around an anchor; 0.05 in the paper.
        patch_weight: of the losses on patches beside those on whole images; the paper adds them up.
        patch_depth: share of the critic's blocks, from the image, after which patches are judged; rounded down.

    Raises:
        Unsupported: there is no generator, or no discriminator to judge patches.
    """
    generator = generator_of(model, recipe, "cdc")
    source = Source(generator.state_dict())
    part = Correspondence(weight, images, source, drawing_parts(generator).blocks)
    let_go(model)
    if anchors:
        recipe = relaxed(model, recipe, anchors=anchors, radius=radius, weight=patch_weight, depth=patch_depth)
    phases = list(recipe.phases)
    least = min(phase.every for phase in phases if GENERATOR in phase.trains)
    at = next(i for i, phase in enumerate(phases) if GENERATOR in phase.trains and phase.every == least)
    settings = {**phases[at].settings, "cdc": weight, "cdc_images": images, "source": source.digest}
    phases[at] = replace(phases[at], loss=Together(phases[at].loss, part), settings=settings)
    return replace(recipe, phases=tuple(phases))


CDC = Method("keep which samples are alike as the parent has it", "Ojha et al., 2021, arXiv:2104.06820", cdc)
