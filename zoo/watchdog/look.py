"""What the watchdog measures: samples of the networks as they are now, and what the critic thinks of three kinds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from math import isfinite

import torch
from torch import Tensor, nn

from zoo.data import ImageSet, normalise
from zoo.data.batches import Part
from zoo.errors import ConfigError
from zoo.model import Model
from zoo.noise import key
from zoo.watchdog.readings import SAMPLES, Seen
from zoo.watchdog.reference import LEAST, Reference, pooled

BANK = 1024          # real images that samples are compared with
JUDGED = 64          # images of each kind that the critic is asked about
DIGITS = 5           # of what is kept


class Eye:
    """Looks at a model that is being trained, and leaves no trace: the same latents each time, networks as they were.

    Args:
        images: the training images; some are read at the first look.
        held: images kept out of the training, or None.
        seed: of the training: it says which images and latents are looked at.
    """

    def __init__(self, images: ImageSet, held: ImageSet | None, seed: int, *, mirror: bool):
        self._images, self._held, self._seed, self._mirror = images, held, seed, mirror

    def look(self, model: Model) -> Seen:
        """Return what is seen: `Reference.compare`'s numbers and the critic's mean logits; ``broken`` where it must.

        ``broken`` is the share of samples with values that are not finite; where there are any, nothing else is told.
        """
        with torch.no_grad(), _live(model), _judging(model):
            features, on_fake = self._samples(model)
            broken = float((~features.isfinite().all(1)).double().mean())
            if broken:
                return Seen({"broken": broken})
            known = self._reference
            found = {} if known is None else known.compare(features, whole=self._whole)
            middle = [] if known is None else known.middle(features).tolist()
            if on_fake:
                with suppress(ConfigError):
                    found |= self._judged(model, on_fake)
        numbers = {name: _rounded(value) for name, value in found.items() if isfinite(value)}
        return Seen(numbers, tuple(map(_rounded, middle)))

    def _samples(self, model: Model) -> tuple[Tensor, list[Tensor]]:
        """Return features [SAMPLES, d] of samples, and the critic's logits of the first of them."""
        labels = self._labels(model, SAMPLES)
        features, logits = [], []
        for first in range(0, SAMPLES, model.at_once):
            n = min(model.at_once, SAMPLES - first)
            rows = None if labels is None else labels[first : first + n]
            images = model.sample(n, seed=key("watchdog", self._seed, first), labels=rows)
            features.append(pooled(images))
            if first < JUDGED and "discriminator" in model.networks():
                with suppress(ConfigError):      # a critic of packs takes only numbers of images that these fill
                    logits.append(model.logits(images, rows))
        return torch.cat(features), logits

    def _judged(self, model: Model, on_fake: list[Tensor]) -> dict[str, float]:
        pixels, labels = self._bank
        on_real = _logits(model, pixels[:JUDGED], labels)
        fake = torch.cat(on_fake)
        found = {"logit_real": float(on_real.mean()), "logit_fake": float(fake.mean()),
                 "logit_spread": float(torch.cat([on_real, fake]).std(correction=0))}  # fmt: skip
        if self._kept is not None:
            found["logit_held"] = float(_logits(model, *self._kept).mean())
        return found

    def _labels(self, model: Model, n: int) -> Tensor | None:
        """Return labels [n] as the data has them: a model is not to blame for classes that are rare."""
        if not model.config.num_classes:
            return None
        _, labels = self._bank
        return torch.zeros(n, dtype=torch.int64) if labels is None else labels[torch.arange(n) % len(labels)]

    @cached_property
    def _bank(self) -> tuple[Tensor, Tensor | None]:
        """Images uint8 [N, C, H, W] and labels [N]: the first that the training shows, so a stream fetches no more."""
        count = min(len(self._images), BANK)
        pixels, labels = Part(self._images, count, self._seed, slice(None), self._mirror, pinned=False).fetch(0)
        return pixels.cpu(), None if labels is None else labels.cpu()

    @cached_property
    def _reference(self) -> Reference | None:
        pixels, _ = self._bank
        if len(pixels) < LEAST:
            return None
        return Reference.of(torch.cat([pooled(normalise(part)) for part in torch.split(pixels, 64)]))

    @property
    def _whole(self) -> bool:
        return len(self._images) <= BANK

    @cached_property
    def _kept(self) -> tuple[Tensor, Tensor | None] | None:
        return None if self._held is None else self._held.rows(range(min(len(self._held), JUDGED)))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _logits(model: Model, pixels: Tensor, labels: Tensor | None) -> Tensor:
    """Return the critic's logits [N, 1] of images uint8 [N, C, H, W], in parts that fit in memory."""
    if not model.config.num_classes:
        labels = None
    elif labels is None:
        labels = torch.zeros(len(pixels), dtype=torch.int64)
    size = model.at_once
    return torch.cat([
        model.logits(normalise(pixels[i : i + size]), None if labels is None else labels[: len(pixels)][i : i + size])
        for i in range(0, len(pixels), size)
    ])  # fmt: skip


@contextmanager
def _live(model: Model) -> Iterator[None]:
    """Sample from the networks as they are: averages would tell of a fault when it is long past."""
    averages = model.averages
    model.averages = nn.ModuleDict()
    try:
        yield
    finally:
        model.averages = averages


@contextmanager
def _judging(model: Model) -> Iterator[None]:
    """Give every module its own mode back: sampling switches the whole model at once."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
