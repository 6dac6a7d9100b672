"""Progressive growing as a change of any recipe whose generator can be trained in stages (`zoo.stages`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from torch import Tensor

from zoo.errors import Unsupported
from zoo.recipe import Batch, Loss, Recipe, Terms
from zoo.stages import Growth, Stage, brought, check_growth, enter, resolutions_of

if TYPE_CHECKING:
    from zoo.model import Model

GENERATOR = "generator"


@dataclass(frozen=True)
class Grown:
    """A loss whose reals have the detail that the generator's stage can make, and no more."""

    loss: Loss
    growth: Growth

    def __call__(self, model: Model, batch: Batch) -> Terms:
        generator = model.get_submodule(GENERATOR)
        stage = cast("Stage | None", generator.stage)
        if stage is not None:
            enlarge = cast("Callable[[Tensor], Tensor]", generator.enlarge)
            batch = replace(batch, images=brought(batch.images, stage, enlarge))
        return self.loss(model, batch)


def with_growth(model: Model, recipe: Recipe, *, first: int = 8, until: float = 0.5, fade: float = 0.5) -> Recipe:
    """Return the recipe for a training of this model in stages, which `Model.advance` enters when they are due.

    Networks without stages, such as a critic, are trained as ever, on full-size images of less detail. As stages are a
    function of the training's progress, nothing has to be kept: a resumed run enters where it was.

    Args:
        first, until, fade: as of `zoo.stages.Growth`.

    Raises:
        Unsupported: the model's generator has no stages.
        ConfigError: `first` is none of them, or a share is out of range.
    """
    name = model.architecture or type(model).__name__
    resolutions = resolutions_of(model.get_submodule(GENERATOR)) if GENERATOR in model.networks() else ()
    if len(resolutions) < 2:
        raise Unsupported(f"{name} of this configuration has no generator that can be trained in stages.")
    growth = Growth(first, until, fade)
    check_growth(growth, resolutions)
    said = f"first={first}, until={until:g}, fade={fade:g}"
    return replace(recipe, phases=tuple(
        replace(phase, loss=Grown(phase.loss, growth), settings={**phase.settings, "growth": said})
        for phase in recipe.phases
    ))  # fmt: skip


def begin(model: Model, recipe: Recipe) -> None:
    """Tell a model how this recipe grows it, if it does; what an earlier training left is forgotten."""
    enter(model, None)
    model.growth = next((found for phase in recipe.phases if (found := _growth(phase.loss))), None)


def _growth(loss: object) -> Growth | None:
    while loss is not None and not isinstance(loss, Grown):      # other wrappers hold what they wrap as `loss` too
        loss = getattr(loss, "loss", None)
    return None if loss is None else loss.growth
