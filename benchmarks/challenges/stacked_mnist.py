"""Stacked MNIST: how many of a thousand modes a GAN finds, and how evenly, by VEEGAN's and PacGAN's protocol.

The networks are half as wide and the training is five passes over the triples, where PacGAN makes 50, so that an arm
takes half an hour of a core. A KL is given beside the floor that 26,000 perfect samples have by chance alone, and its
excess over it. The arm `data` is what the classifier counts in real triples.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import harness
import torch
from arms import recipe_of
from digits import (
    GOOD,
    MODES,
    SAMPLES,
    TRIPLES,
    Classifier,
    Digits,
    Stacked,
    classifier,
    digits_of,
    divergence,
    floors,
    modes,
    opened,
    shares,
)
from torch import Tensor

import zoo
from zoo.data.images import ImageSet
from zoo.home import zoo_home
from zoo.images import save_grid
from zoo.metrics.sampling import Sampler
from zoo.noise import key
from zoo.storage import place

COLUMNS = ("modes", "kl_uniform", "kl_excess", "kl_data", "kimg")
NARROW = {"resolution": 32, "latent": 64, "generator_width": 32, "discriminator_width": 32}
# A penalty of gamma 1 finds 300 modes sooner, and then leaves the critic nothing to tell digits from their likes by.
PENALTIES = ["r1:gamma=0.05,every=4", "r2:gamma=0.05,every=4"]
OPTIMISER: dict[str, Any] = {
    "lr": 7e-4, "betas": [0.0, 0.99], "batch": 32, "anneal": "cosine", "final_rate": 0.1, "ema_kimg": 5.0,
}  # fmt: skip
RECOMMENDED: dict[str, Any] = {
    "architecture": "dcgan", "model": {**NARROW, "discriminator_norm": False}, "kimg": 640, "precision": "bf16",
    "loss": "relativistic", "add": PENALTIES, "recipe": OPTIMISER,
}  # fmt: skip
PLAIN: dict[str, Any] = {"architecture": "dcgan", "model": NARROW, "kimg": 640, "precision": "bf16",
                         "recipe": {"batch": 32, "ema_kimg": 5.0}}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "data": {"resampled": True},
    "recommended": RECOMMENDED,
    "dcgan": PLAIN,
    "pacdcgan2": {**PLAIN, "add": ["pacgan:m=2"]},
}
QUICK: dict[str, Any] = {
    "kimg": 0.256, "precision": None, "samples": 500, "triples": 1000, "epochs": 0.02, "least": 0.0,
}  # fmt: skip


@cache
def images_of(folder: Path, n: int) -> ImageSet:
    digits = digits_of(folder)
    return opened(Stacked("stacked-mnist", digits.all_images, digits.triples(n, seed=0)))


def measure(
    settings: Mapping[str, Any], seed: int, folder: Path, *, mnist: Path, work: Path, out: Path | None
) -> dict[str, Any]:
    """Train an arm and count the modes of its samples; or count those of real triples, resampled."""
    digits, n = digits_of(mnist), settings.get("samples", SAMPLES)
    epochs, least = settings.get("epochs", 4), settings.get("least", GOOD)
    network, accuracy = classifier(digits, work / f"mnist-{epochs}.safetensors", epochs=epochs, least=least)
    floor = floors(shares(digits), n)
    if settings.get("resampled"):
        triples = digits.triples(n, seed + 1)
        counts = modes(network, (digits.all_images[each] for each in triples.split(500)))
        return {**counted(counts, digits, floor), "kimg": None, "accuracy": accuracy, "floor": floor}
    torch.manual_seed(key("weights", seed))
    model = zoo.create(settings["architecture"], **settings["model"])
    images = images_of(mnist, settings.get("triples", TRIPLES))
    watch = Watch(model, images, network, folder / "history.json", n // 10)
    run = zoo.train(
        model, images, kimg=settings["kimg"], out=folder / "run", resume=True, seed=seed,
        recipe=recipe_of(model, settings), precision=settings["precision"], tick_kimg=settings["kimg"] / 16,
        sample_kimg=1e6, checkpoint_kimg=settings["kimg"] / 16, progress=watch,
    )  # fmt: skip
    counts = modes(network, Sampler.of(run.model, images, seed=seed, psi=1.0).batches(n, 500))
    if seed == 0 and out is not None:
        save_grid(run.model.sample(64, seed=0), out / f"stacked_mnist_{folder.name.rpartition('-')[0]}.png")
    return {**counted(counts, digits, floor), "kimg": settings["kimg"], "accuracy": accuracy, "floor": floor,
            "history": watch.history}  # fmt: skip


def counted(counts: Tensor, digits: Digits, floor: Mapping[str, float]) -> dict[str, Any]:
    """Return what counts of the 1000 modes come to."""
    uniform = torch.full((MODES,), 1 / MODES, dtype=torch.float64)
    kl = divergence(counts, uniform)
    return {"modes": int((counts > 0).sum()), "kl_uniform": kl, "kl_excess": kl - floor["kl_uniform"],
            "kl_data": divergence(counts, shares(digits))}  # fmt: skip


class Watch:
    """Counts the modes among a few samples at each tick of a training; what it has seen outlives a kill."""

    def __init__(self, model: zoo.Model, images: ImageSet, network: Classifier, path: Path, samples: int):
        self.model, self.images, self.network, self.path, self.samples = model, images, network, path, samples
        self.history: list[dict[str, float]] = json.loads(path.read_text()) if path.exists() else []
        self._begun = time.monotonic() - (self.history[-1]["seconds"] if self.history else 0.0)

    def __call__(self, done: float, total: float, means: Mapping[str, float | None]) -> None:
        counts = modes(self.network, Sampler.of(self.model, self.images, seed=0, psi=1.0).batches(self.samples, 500))
        seen = {"kimg": done, "seconds": round(time.monotonic() - self._begun, 1), "modes": int((counts > 0).sum())}
        self.history = [each for each in self.history if each["kimg"] < done] + [seen]
        place(json.dumps(self.history).encode(), self.path)


def plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw how many modes were found on the way, and the KL at the end over what chance alone gives."""
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for run in runs:
        if "history" in run["results"]:
            ticks = run["results"]["history"]
            left.plot([each["kimg"] for each in ticks], [each["modes"] for each in ticks],
                      label=f"{run['arm']}, seed {run['seed']}")  # fmt: skip
        right.scatter(run["arm"], max(run["results"]["kl_excess"], 1e-4))
    left.set(xlabel="thousand images", ylabel=f"modes among {SAMPLES // 10:,} samples", ylim=(0, MODES))
    right.set(ylabel=f"KL of {SAMPLES:,} samples to uniform, over the floor", yscale="log")
    if left.lines:
        left.legend()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    """Measure what is not known yet."""
    options = harness.parser(__doc__)
    options.add_argument("--mnist", type=Path, required=True, help="folder of MNIST's four files")
    chosen = options.parse_args()
    work = chosen.work or zoo_home() / "challenges"
    known = partial(measure, mnist=chosen.mnist, work=work, out=None if chosen.quick else chosen.out)
    harness.carry_out(harness.Challenge("stacked_mnist", ARMS, known, COLUMNS, seeds=3, quick=QUICK, plot=plot), chosen)


if __name__ == "__main__":
    main()
