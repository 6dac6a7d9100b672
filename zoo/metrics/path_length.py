"""Perceptual path length (PPL; Karras et al., 2019, arXiv:1812.04948, section 4.1; 2020, arXiv:1912.04958): how fast
images change on the way from one latent to another. Short where latents change images gradually, long where things
appear and vanish on the way.

For each path, d(G(p(t)), G(p(t + eps))) / eps^2 with LPIPS on VGG16 as d and eps = 1e-4, and the mean over the paths of
what lies between the 1st and the 99th percentile. Where the paths run is in the name: `z`, from latent to latent on the
sphere, or `w`, from style to style on a line; `full`, t anywhere from 0 to 1, or `end`, t = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from zoo.errors import EvaluationError
from zoo.metrics.lpips import LPIPS, at_size, weights_of
from zoo.metrics.metric import Metric
from zoo.noise import Noise, key
from zoo.uncertainty import STD_ERROR

if TYPE_CHECKING:
    from zoo.metrics.sampling import Fakes
    from zoo.model import Model

EPSILON = 1e-4        # of the way, between the two images that are compared
TRIMMED = 0.01        # share of the paths that is left out at either end
LARGEST = 256         # pixels a side of the images that are compared
CHUNK = 64            # paths that share a seed; part of what a seed means, so a constant
NETWORK = "vgg"
TINY = 1e-30

Space = Literal["z", "w"]
Distance = Callable[[Tensor, Tensor], Tensor]      # two batches of images [N, C, H, W] -> [N]


def perceptual_path_length(
    model: Model, fakes: Fakes, samples: int, seed: int, *, space: Space, full: bool
) -> dict[str, float]:
    """Return {"ppl_zfull"} or what space and part of the way make of it, and its standard error.

    `samples` paths between latents drawn by the seed; both ends have the class of the evaluation's image of that number
    and its truncation, and both images the same noise. Images are compared as the networks make them, neither rounded
    nor limited to [-1, 1]; above 256 pixels they are reduced to that by averaging areas, as in the authors' program,
    below 64 enlarged to that bilinearly, which is ours. Faces are not cut out.

    Raises:
        Unsupported: space "w", and the model has no mapping to styles.
        EvaluationError: fewer than 2 paths, or the model makes values that are not finite.
    """
    measure = LPIPS(NETWORK, model.device)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return measure(at_size(a, LARGEST), at_size(b, LARGEST))

    labels = fakes.labels_of(samples)
    lengths = path_lengths(model, samples, distance, space=space, full=full, psi=fakes.psi, labels=labels, seed=seed)
    return trimmed_mean(f"ppl_{space}{'full' if full else 'end'}", lengths)


def path_lengths(
    model: Model,
    n: int,
    distance: Distance,
    *,
    space: Space,
    full: bool,
    psi: float = 1.0,
    labels: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Return d(G(p(t)), G(p(t + eps))) / eps^2 of n paths, float64 [n].

    Raises:
        Unsupported: space "w", and the model has no mapping to styles.
        EvaluationError: a value is not finite.
    """
    found = []
    for start in range(0, n, CHUNK):
        count, seeded = min(CHUNK, n - start), key("path length", seed, start)
        noise = Noise(seeded)
        ends = model.latent(CHUNK, noise, psi)[:count], model.latent(CHUNK, noise, psi)[:count]
        t = noise.uniform(CHUNK)[:count].double() * full
        classes = None if labels is None else labels[start : start + count]
        if space == "w":
            ends = model.styles(ends[0], classes, psi=psi).cpu(), model.styles(ends[1], classes, psi=psi).cpu()
        way = on_line if space == "w" else on_sphere
        near, far = (_shown(model, way(*ends, at), classes, space, psi, seeded) for at in (t, t + EPSILON))
        found.append(distance(near, far).double().cpu() / EPSILON**2)
    lengths = torch.cat(found)
    if not lengths.isfinite().all():
        raise EvaluationError("The model makes NaN or infinity: its training diverged, so take earlier weights.")
    return lengths


def trimmed_mean(name: str, values: Tensor) -> dict[str, float]:
    """Return {NAME, NAME_std_error}: the mean of what lies between the 1st and the 99th percentile of values [N].

    The percentiles are the next value below the one and above the other, as in the authors' program. The standard error
    is that of a trimmed mean: of the values with those beyond brought to the percentiles (Tukey and McLaughlin, 1963).

    Raises:
        EvaluationError: fewer than two.
    """
    if len(values) < 2:
        raise EvaluationError(f"{name}: give 2 samples at least.")
    values = values.double()
    ordered, cut = values.sort().values, int(TRIMMED * (len(values) - 1))
    low, high = ordered[cut], ordered[-1 - cut]
    within = values[(values >= low) & (values <= high)]
    spread = values.clamp(low, high).std() / (len(within) / len(values))
    return {name: float(within.mean()), name + STD_ERROR: float(spread / len(values) ** 0.5)}


def on_line(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return a + t (b - a), float64, for [N, ...] and t [N]."""
    first, second = a.double(), b.double()
    return first + t.double().reshape(-1, *[1] * (a.ndim - 1)) * (second - first)


def on_sphere(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return the point a share t [N] of the way from a to b on the great circle through both, float64 [N, ...].

    The angle grows evenly (Shoemake, 1985), and so does the length, which the authors' program sets to 1: to a mapping
    that begins by normalising its latents it makes no difference, other networks need latents as long as they know.
    """
    first, second, share = a.double().flatten(1), b.double().flatten(1), t.double()[:, None]
    from_length, to_length = (each.norm(dim=1, keepdim=True).clamp_min(TINY) for each in (first, second))
    first, second = first / from_length, second / to_length
    cosine = (first * second).sum(1, keepdim=True).clamp(-1, 1)
    aside = second - cosine * first      # at a right angle to the first
    aside = aside / aside.norm(dim=1, keepdim=True).clamp_min(TINY)
    angle, length = share * cosine.acos(), torch.lerp(from_length, to_length, share)
    found: Tensor = (angle.cos() * first + angle.sin() * aside) * length
    return found.reshape(a.shape)


def _shown(model: Model, at: Tensor, labels: Tensor | None, space: Space, psi: float, seed: int) -> Tensor:
    """Return raw images of latents or styles; the same seed gives both images of a path the same noise."""
    if space == "w":
        return model.synthesise(at.float(), seed=seed, clamp=False)
    return model.sample(z=at.float(), labels=labels, psi=psi, seed=seed, clamp=False)


def _metric(space: Space, full: bool) -> Metric:
    function = partial(perceptual_path_length, space=space, full=full)
    return Metric(function, inputs=("model", "fakes", "samples", "seed"), networks=partial(weights_of, NETWORK))


PPL_ZFULL, PPL_ZEND = _metric("z", True), _metric("z", False)
PPL_WFULL, PPL_WEND = _metric("w", True), _metric("w", False)
