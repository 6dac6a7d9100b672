"""How unlike the images of a set are to each other: MS-SSIM or LPIPS between random pairs of one class.

Odena et al., 2017, arXiv:1610.09585, section 4.2: a class of which the model shows one image again and again has a high
MS-SSIM. The same of the real images tells how varied they are. Neither knows whether the images look real: noise is as
unlike as can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.data import normalise
from zoo.errors import EvaluationError
from zoo.metrics.features import to_rgb
from zoo.metrics.lpips import LPIPS, at_size, weights_of
from zoo.metrics.metric import Metric, mean_of
from zoo.metrics.similarity import ms_ssim
from zoo.noise import key

if TYPE_CHECKING:
    from zoo.data import ImageSet
    from zoo.metrics.sampling import Fakes

PAIRS = 1000          # at most, of each side
AT_ONCE = 32          # pairs that are compared at once
NETWORK = "alex"
INPUTS = ("fakes", "samples", "images", "places", "seed", "device")

Similarity = Callable[[Tensor, Tensor], Tensor]


def ms_ssim_diversity(
    fakes: Fakes, samples: int, images: ImageSet, places: list[int], seed: int, device: torch.device
) -> dict[str, float]:
    """Return {"ms_ssim_diversity", "ms_ssim_diversity_real"} and their standard errors; see `between_pairs`.

    1: all images of a class are the same. Below 176 pixels MS-SSIM has fewer scales: see `zoo.metrics.similarity`.
    """
    return between_pairs("ms_ssim_diversity", ms_ssim, fakes, samples, images, places, seed, device)


def lpips_diversity(
    fakes: Fakes, samples: int, images: ImageSet, places: list[int], seed: int, device: torch.device
) -> dict[str, float]:
    """Return {"lpips_diversity", "lpips_diversity_real"}, on AlexNet, and their standard errors; see `between_pairs`.

    0: all images of a class are the same. Images below 64 pixels are enlarged to that.
    """
    measure = LPIPS(NETWORK, device)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return measure(at_size(a), at_size(b))

    return between_pairs("lpips_diversity", distance, fakes, samples, images, places, seed, device)


def between_pairs(
    name: str,
    measure: Similarity,
    fakes: Fakes,
    samples: int,
    images: ImageSet,
    places: list[int],
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """Return {NAME, NAME_real}: the mean of a measure over random pairs of fakes and of real images, with errors.

    No image is in two pairs, and there are 1,000 pairs at most. Both images of a pair are of one class, if fakes and
    real images have the same number of classes.

    Raises:
        EvaluationError: fewer than two pairs.
    """
    chance = torch.Generator().manual_seed(key("pairs", seed))
    fake_labels = fakes.labels_of(samples)
    if images.labels is None or fakes.classes != len(images.classes):
        fake_labels = None
    real_labels = None if fake_labels is None else images.labels_of(places)
    # A model's images are drawn independently of each other, those of a folder may lie in an order.
    order = range(samples) if fakes.model is not None else torch.randperm(samples, generator=chance).tolist()
    shuffled = torch.randperm(len(places), generator=chance).tolist()
    sides = {
        name: pairs(order, fake_labels, lambda i: fakes.read(i, i + 1)),
        f"{name}_real": pairs(shuffled, real_labels, lambda i: images.read([places[i]])),
    }
    return {key: value for side, found in sides.items() for key, value in _mean(side, found, measure, device).items()}


def pairs(
    order: Iterable[int], labels: Tensor | None, read: Callable[[int], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs of images of one class, uint8 [1, C, H, W]: each with the one of its class that came before it."""
    waiting: dict[int, Tensor] = {}
    count = 0
    for i in order:
        kind = 0 if labels is None else int(labels[i])
        if kind not in waiting:
            waiting[kind] = read(i)
            continue
        yield waiting.pop(kind), read(i)
        count += 1
        if count == PAIRS:
            return


def _mean(
    name: str, found: Iterator[tuple[Tensor, Tensor]], measure: Similarity, device: torch.device
) -> dict[str, float]:
    values, batch = [], []
    for pair in found:
        batch.append(pair)
        if len(batch) == AT_ONCE:
            values.append(_measured(batch, measure, device))
            batch = []
    if batch:
        values.append(_measured(batch, measure, device))
    if sum(map(len, values)) < 2:
        raise EvaluationError(f"{name}: fewer than two pairs of images of one class: give more images.")
    return mean_of(name, torch.cat(values))


def _measured(batch: list[tuple[Tensor, Tensor]], measure: Similarity, device: torch.device) -> Tensor:
    a, b = (normalise(to_rgb(torch.cat(side).to(device))) for side in zip(*batch))
    return measure(a, b).cpu()


def _four(dimensions: int) -> int:
    return 4


MS_SSIM_DIVERSITY = Metric(ms_ssim_diversity, inputs=INPUTS, least=_four)
LPIPS_DIVERSITY = Metric(lpips_diversity, inputs=INPUTS, least=_four, networks=partial(weights_of, NETWORK))
