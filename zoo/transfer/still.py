"""Methods that let a part of the networks stand still, chosen by how these are built and not by their names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field
from torch import nn

from zoo.errors import Unsupported
from zoo.model import Model
from zoo.recipe import Recipe
from zoo.transfer.method import GENERATOR, Method, generator_of
from zoo.transfer.structure import drawing_parts, frozen_patterns, with_frozen

Part = Annotated[float, Field(gt=0, lt=1)]
NORMS = (      # of torch; those of an architecture are named by its `Model.scales`
    nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d, nn.RMSNorm,
)  # fmt: skip


def freeze_d(model: Model, recipe: Recipe, *, share: Part = 0.5) -> Recipe:
    """Let the blocks of each critic that lie next to the image stand still.

    Args:
        share: of the blocks, rounded up.

    Raises:
        Unsupported: the recipe has no critic, or its critic is fresh.
    """
    if set(recipe.fresh) & set(recipe.critics):
        raise Unsupported("freeze_d keeps what a critic has learnt, and this one is fresh: use method full.")
    if not recipe.critics:
        raise Unsupported(f"{model.architecture} has no critic, so freeze_d has nothing to freeze: use method full.")
    patterns = {name: frozen_patterns(name, model.get_submodule(name), share) for name in recipe.critics}
    return with_frozen(recipe, patterns)


def freeze_g(model: Model, recipe: Recipe, *, share: Part = 0.5) -> Recipe:
    """Let the generator's blocks of low resolution stand still, and what comes before them, such as a mapping.

    The running statistics of what is frozen go on following the batches.

    Args:
        share: of the blocks, rounded down.

    Raises:
        Unsupported: there is no generator.
    """
    generator = generator_of(model, recipe, "freeze_g")
    found = drawing_parts(generator)
    still = [*found.before, *found.blocks[: int(share * len(found.blocks))]]
    if not still:
        raise Unsupported(
            f"{model.architecture}'s generator has {len(found.blocks)} blocks and nothing before them, so a share of "
            f"{share:g} freezes nothing: give a larger one, or use method full."
        )
    own = dict(generator.named_parameters(recurse=False))
    return with_frozen(recipe, {GENERATOR: [f"{GENERATOR}.{name}" + ("" if name in own else ".*") for name in still]})


def scale_shift(model: Model, recipe: Recipe) -> Recipe:
    """Train only what scales and shifts the generator's features: affine parameters of its norms, its modulation.

    Raises:
        Unsupported: there is no generator, or it has no such parameters.
    """
    generator = generator_of(model, recipe, "scale_shift")
    moving = scaling(model, generator)
    if not moving:
        raise Unsupported(
            f"{model.architecture}'s generator has neither norms with affine parameters nor modulation, which is all "
            "that scale_shift trains: use method lora, freeze_g or full."
        )
    names = [f"{GENERATOR}.{name}" for name, _ in generator.named_parameters()]
    return with_frozen(recipe, {GENERATOR: [name for name in names if name not in moving]})


def scaling(model: Model, generator: nn.Module) -> set[str]:
    """Return the names of the parameters that scale and shift features, the network's name before them."""
    found = {
        f"{GENERATOR}.{path}.{name}"
        for path, module in generator.named_modules()
        if isinstance(module, NORMS)
        for name, _ in module.named_parameters(recurse=False)
    }
    for name, _ in generator.named_parameters():
        if any(fnmatchcase(f"{GENERATOR}.{name}", pattern) for pattern in model.scales):
            found.add(f"{GENERATOR}.{name}")
    return found


FREEZE_D = Method("freeze the critic's half next to the image", "Mo et al., 2020, arXiv:2002.10964", freeze_d)
FREEZE_G = Method("freeze the generator's half next to the latent", "Back, 2021, arXiv:2106.12445", freeze_g)
SCALE_SHIFT = Method(
    "train only what scales and shifts the generator's features",
    "Noguchi and Harada, 2019, arXiv:1904.01774",
    scale_shift,
)
