"""The changes of a recipe, wrapped around its critics: reals, fakes and penalties all pass through them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from zoo.errors import ConfigError, suggest
from zoo.model import Model
from zoo.noise import Noise
from zoo.recipe import Recipe
from zoo.training.augmentation.diffaugment import PARTS


def check(parts: Sequence[str]) -> None:
    """Raise ConfigError unless every part is one that there is."""
    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"No augmentation {part!r}.{suggest(part, list(PARTS))} Possible: {', '.join(PARTS)}.")


def augment(images: Tensor, parts: Sequence[str], noise: Noise) -> Tensor:
    """Return images [N, C, H, W] after each of the named parts, in order."""
    for part in parts:
        images = PARTS[part](images, noise)
    return images


class Augmenter:
    """What stands between images and critics: the parts of `recipe.augment`, and how strongly they act."""

    def __init__(self, recipe: Recipe, model: Model):
        self._parts = recipe.augment
        self._critics = [model.get_submodule(name) for name in recipe.critics]
        self._noise = Noise(0)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Have the critics see their images changed, for as long as they are in training mode."""
        with ExitStack() as stack:
            for critic in self._critics if self._parts else ():
                stack.callback(critic.register_forward_pre_hook(self._change).remove)
            yield

    def draw(self, noise: Noise) -> None:
        """Take the chance of the coming micro-batch of a phase."""
        self._noise = noise

    def hear(self, watched: Mapping[str, float]) -> None:
        """Take what a turn watched: scalars, averaged over the whole batch and all processes."""

    def adapt(self, images: int) -> None:
        """Hear that a step is over, which showed so many images."""

    def watch(self) -> dict[str, float]:
        """Return what the log should tell; nothing where nothing adapts."""
        return {}

    def state(self) -> dict[str, float | int]:
        """Return all that a resumed training needs to go on as if it had not stopped, as JSON."""
        return {}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from what `state` returned."""

    def _change(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not module.training:
            return None      # sampling and logits for the user see images as they are
        return (augment(inputs[0], self._parts, self._noise), *inputs[1:])
