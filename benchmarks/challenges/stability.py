"""Stability: which ways to hold a critic's slope survive which learning rates.

A narrow DCGAN learns grey images of 32x32 pixels (Fashion-MNIST, padded) for a short time, by each way and learning
rate. A run survives if its values stay finite, its samples differ from each other at least half as much as real images
do, and they are nearer to these than an untrained generator's. How near they came, coverage and recall say too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import harness
import torch
from arms import recipe_of
from digits import Stacked, digits_of, opened

import zoo
from zoo.data.images import ImageSet
from zoo.errors import Diverged, EvaluationError
from zoo.metrics.names import offline_features
from zoo.noise import key

COLUMNS = ("survived", "frechet", "coverage", "recall", "spread")
RATES = (2e-4, 1e-3, 5e-3, 2.5e-2)
SPREAD = 0.5          # least of a run that has not collapsed
UNTRAINED = 1460.0    # Frechet distance to the data, in features of lite0, of samples of an untrained generator
SAMPLES, REFERENCE = 2000, 5000
PAIRED = 500                     # images whose spread is measured
NETWORKS = {"resolution": 32, "channels": 1, "latent": 64, "generator_width": 16, "discriminator_width": 16}
BARE = {**NETWORKS, "discriminator_norm": False}
CRITIC = "critic_steps:n=5"
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"model": NETWORKS},
    "weight_clipping": {"model": NETWORKS, "loss": "wasserstein", "add": ["weight_clipping", CRITIC]},
    "gradient_penalty": {"model": BARE, "loss": "wasserstein", "add": ["gradient_penalty", CRITIC]},
    "spectral_norm": {"model": BARE, "loss": "hinge", "add": ["spectral_norm"]},
    "r1": {"model": BARE, "add": ["r1:gamma=1"]},
    "relativistic+r1+r2": {"model": BARE, "loss": "relativistic", "gamma": [1.0, 0.1]},
}
ARMS = {
    f"{name}/{rate:g}": {"kimg": 64, **way, "recipe": {"lr": rate, "betas": [0.0, 0.99]}}
    for name, way in WAYS.items() for rate in RATES
}  # fmt: skip


@cache
def images_of(folder: Path, held_out: bool) -> ImageSet:
    """Return the images that are learnt from, or the others."""
    digits = digits_of(folder)
    images = digits.test_images if held_out else digits.images
    return opened(Stacked(f"{folder.name}{'-test' if held_out else ''}", images, torch.arange(len(images))[:, None]))


def spread(images: torch.Tensor) -> float:
    """Return the mean distance between images [N, C, H, W] in pairs: each and the one half the set away."""
    first, second = images.double().flatten(1).chunk(2)
    n = min(len(first), len(second))
    return float((first[:n] - second[:n]).square().mean(1).sqrt().mean())


def measure(settings: Mapping[str, Any], seed: int, folder: Path, *, images: Path) -> dict[str, Any]:
    """Train by one way with one learning rate, and say whether it survived."""
    torch.manual_seed(key("weights", seed))
    model = zoo.create("dcgan", **settings["model"])
    data, held_out = images_of(images, False), images_of(images, True)
    never = 10 * settings["kimg"]
    try:
        run = zoo.train(model, data, kimg=settings["kimg"], out=folder / "run", resume=True, seed=seed,
                        recipe=recipe_of(model, settings), sample_kimg=never, checkpoint_kimg=16)  # fmt: skip
        samples, reference = settings.get("samples", SAMPLES), settings.get("reference", REFERENCE)
        values = zoo.evaluate(
            run.model, held_out, metrics=("fid", "precision_recall", "density_coverage"), samples=samples,
            reference=reference, features=offline_features(), seed=seed, force=True,
        ).values  # fmt: skip
    except (Diverged, EvaluationError) as error:
        return {"survived": 0, "why": str(error), **dict.fromkeys(COLUMNS[1:])}
    fakes = run.model.sample(PAIRED, seed=seed)
    reals = held_out.read(range(min(PAIRED, len(held_out)))) / 127.5 - 1
    share = spread(fakes) / spread(reals)
    return {"survived": survived(values["fid"], share), "frechet": values["fid"], "coverage": values["coverage"],
            "recall": values["recall"], "spread": share}  # fmt: skip


def survived(frechet: float, share: float) -> int:
    """Return 1 for samples that neither collapsed nor went astray, else 0."""
    return int(share >= SPREAD and frechet < UNTRAINED)


def plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the distance to the data over the learning rate, a line for each way; what did not survive is a cross."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for place, name in enumerate(WAYS):
        found = [run for run in runs if run["arm"].rpartition("/")[0] == name and run["results"]["frechet"] is not None]
        colour = f"C{place}"
        for run in sorted(found, key=lambda each: each["settings"]["recipe"]["lr"]):
            axes.scatter(run["settings"]["recipe"]["lr"], run["results"]["frechet"], color=colour,
                         marker="o" if run["results"]["survived"] else "x")  # fmt: skip
        axes.scatter([], [], color=colour, label=name)
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="Frechet distance, offline features")
    axes.legend(title="x: did not survive", fontsize=8)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    """Measure what is not known yet."""
    options = harness.parser(__doc__)
    options.add_argument("--images", type=Path, required=True, help="folder of the four files of Fashion-MNIST")
    chosen = options.parse_args()
    known = partial(measure, images=chosen.images)
    quick = {"kimg": 0.256, "samples": 100, "reference": 100}
    harness.carry_out(harness.Challenge("stability", ARMS, known, COLUMNS, seeds=3, quick=quick, plot=plot), chosen)


if __name__ == "__main__":
    main()
