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
from zoo.steering import HEARD
from zoo.training.augmentation.ada import SETS, ada
from zoo.training.augmentation.diffaugment import PARTS, diffaugment
from zoo.training.augmentation.probability import Probability, changed_share, probability


def check(parts: Sequence[str]) -> None:
    """Raise ConfigError unless the parts are DiffAugment's or one of ADA's sets."""
    possible = [*PARTS, *SETS]
    for part in parts:
        if part not in possible:
            raise ConfigError(f"No augmentation {part!r}.{suggest(part, possible)} Possible: {', '.join(possible)}.")
    if len(parts) > 1 and (sets := [part for part in parts if part in SETS]):
        raise ConfigError(
            f"augment={','.join(parts)}: {sets[0]} goes alone, as its p is measured without other changes; give it or "
            f"some of {', '.join(PARTS)}."
        )


class Augmenter:
    """What stands between images and critics: the parts of `recipe.augment`, and how strongly they act.

    Args:
        recipe: checked; ADA's settings count where `augment` names one of its sets, `augment_p` where DiffAugment's.
        model: its critics, as the recipe names them, are wrapped while `attached`.

    Raises:
        ConfigError: unknown parts, no critic, or settings that do not go together.
    """

    def __init__(self, recipe: Recipe, model: Model):
        check(recipe.augment)
        self._parts = recipe.augment
        if recipe.augment and not recipe.critics:
            raise ConfigError(f"augment={','.join(recipe.augment)}: this recipe has no critic to see changed images.")
        self._critics = [model.get_submodule(name) for name in recipe.critics]
        self._noise = Noise(0)
        self._changes = SETS.get("".join(self._parts), ())
        self._probability: Probability | None = None
        if self._parts:
            self._probability = probability(recipe) if self._changes else changed_share(recipe)
        self._judged = False      # whether a critic that learns has seen images

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Have the critics see their images changed, for as long as they are in training mode."""
        with ExitStack() as stack:
            for critic in self._critics if self._parts else ():
                stack.callback(critic.register_forward_pre_hook(self._before).remove)
            yield

    def draw(self, noise: Noise) -> None:
        """Take the chance of the coming micro-batch of a phase."""
        self._noise = noise

    def hear(self, watched: Mapping[str, float]) -> None:
        """Take what a turn watched: scalars, averaged over the whole batch and all processes."""
        if self._probability is not None:
            self._probability.hear(watched)

    def adapt(self, images: int) -> None:
        """Hear that a step is over, which showed so many images.

        Raises:
            ConfigError: critics have had their turns, but nothing says how far they overfit.
        """
        if self._probability is None:
            return
        self._probability.adapt(images)
        if self._judged and self._probability.deaf:
            raise ConfigError(
                f"ADA moves its p by {HEARD!r}, the mean sign of logits on reals, which none of this recipe's losses "
                "watches (relativistic and Wasserstein ones have no zero): fix p with ada_target=none and ada_p."
            )

    def watch(self) -> dict[str, float]:
        """Return what the log should tell: p, and what it was last moved by; nothing where nothing moves."""
        return {} if self._probability is None else self._probability.watch()

    def state(self) -> dict[str, float | int]:
        """Return all that a resumed training needs to go on as if it had not stopped, fit for JSON."""
        return {} if self._probability is None else self._probability.state()

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from what `state` returned.

        Raises:
            RunError: it is of a training without such a probability.
        """
        if self._probability is not None:
            self._probability.restore(state)

    def __call__(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W] as a critic would see them next."""
        p = 1.0 if self._probability is None else self._probability.p
        if self._changes:
            return ada(images, self._changes, p, self._noise)
        return diffaugment(images, self._parts, self._noise, p)

    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not module.training:
            return None      # sampling and logits for the user see images as they are
        self._judged |= any(parameter.requires_grad for parameter in module.parameters())
        return (self(inputs[0]), *inputs[1:])
