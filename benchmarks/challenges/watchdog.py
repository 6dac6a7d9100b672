"""Does the watchdog see a training go wrong, does it call it rightly, and does it leave healthy ones alone?

Twenty trainings that are made to fail in a known way, and twenty healthy ones of many kinds, all tiny: 16x16 emoji,
some ten seconds each on one core. The thresholds of `zoo.watchdog.signs` were fixed with `--tuning`, which takes other
seeds and keeps its results apart; without it the same arms are run once, with seeds that no threshold has seen.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Challenge, carry_out, parser
from torch import Tensor

import zoo
from zoo.adversarial import without_penalties
from zoo.data import ImageSet, open_images
from zoo.data.order import permutation
from zoo.errors import Collapsed, Diverged

SCORED = 2000      # added to the seed unless tuning; 1000 was looked at when the limits were changed
SCHEDULE = {"tick_kimg": 0.64, "sample_kimg": 1000, "checkpoint_kimg": 1000}
DCGAN = {"resolution": 16, "latent": 16, "generator_width": 16, "discriminator_width": 16}
STYLEGAN = {"resolution": 16, "latent": 32, "w": 32, "mapping_layers": 2, "channel_base": 128, "channel_max": 16}
VAE = {"resolution": 16, "width": 8, "widest": 32, "latent": 16, "prior_width": 32, "prior_steps": 4}
R3GAN = {"resolution": 16, "latent": 16, "channel_base": 256, "channel_max": 32, "blocks": 1}
SOON, LATE = 9.0, 18.5      # kimg: what is there from the start needs three looks, what comes and goes more
COLLAPSE, DIVERGENCE, OVERFITS = "mode collapse", "divergence", "discriminator overfits"
POSTERIOR, COPIES, OSCILLATES = "posterior collapse", "memorisation", "oscillation"


def gan(config: Mapping[str, Any] = DCGAN, name: str = "dcgan", **more: Any) -> dict[str, Any]:
    """Return an arm; `more` may have settings, add, data (a number: so many emoji), kimg, fault, expected."""
    return {"architecture": name, "config": dict(config), "kimg": LATE, "settings": {"lr": 1e-3}, "data": "emoji",
            "fault": {}, "expected": [], "add": [], "hold_out": None, **more}  # fmt: skip


def vae(config: Mapping[str, Any] = {}, **more: Any) -> dict[str, Any]:
    return gan({**VAE, **config}, "vae", **{"settings": {}, **more})


def failing(arm: Mapping[str, Any], *expected: str, **fault: Any) -> dict[str, Any]:
    """Return the arm with a fault, and what it may be called."""
    return {**arm, "fault": fault, "expected": list(expected)}


HINGE, LEAST = {"lr": 1e-3, "loss": "hinge"}, {"lr": 1e-3, "loss": "least_squares"}
STYLE = gan(STYLEGAN, "stylegan", settings={"lr": 2e-3, "batch": 64})
HEALTHY = {
    "dcgan": gan(data=1600, hold_out=32),
    "dcgan slow": gan(settings={"lr": 2e-4}),
    "dcgan, small batch": gan(settings={"lr": 5e-4, "batch": 16}),
    "dcgan, DiffAugment": gan(settings={"lr": 1e-3, "augment": ["color", "translation"]}),
    "dcgan, ADA": gan(settings={"lr": 1e-3, "augment": ["ada"], "ada_kimg": 20}),
    "dcgan, R1": gan(add=["r1:gamma=0.1"]),
    "dcgan, hinge": gan(settings=HINGE),
    "dcgan, least squares": gan(settings=LEAST),
    "dcgan, relativistic": gan(settings={"lr": 1e-3, "loss": "relativistic"}, add=["r1:gamma=0.1", "r2:gamma=0.1"]),
    "dcgan, spectral": gan(add=["spectral_norm"]),
    "dcgan, WGAN-GP": gan(settings={"lr": 5e-4, "loss": "wasserstein"}, add=["gradient_penalty"]),
    "dcgan of classes": gan({**DCGAN, "num_classes": 8}),
    "dcgan, grey": gan({**DCGAN, "channels": 1}),
    "dcgan, few and augmented": gan(
        data=400, hold_out=32, settings={"lr": 1e-3, "augment": ["color", "translation", "cutout"]}),
    "stylegan": STYLE,
    "stylegan, DiffAugment": {**STYLE, "settings": {"lr": 2e-3, "batch": 64, "augment": ["color", "translation"]}},
    "r3gan": gan(R3GAN, "r3gan", settings={"lr": 5e-4}),
    "vae": vae(),
    "vae, normal prior": vae({"prior": "normal"}),
    "vae, gaussian": vae({"likelihood": "gaussian"}),
}
FAILING = {
    "one image": failing(gan(kimg=SOON), COLLAPSE, codes=1),
    "two images, least squares": failing(gan(settings=LEAST, kimg=SOON), COLLAPSE, codes=2),
    "four images": failing(gan(kimg=SOON), COLLAPSE, codes=4),
    "four images, R1": failing(gan(add=["r1:gamma=0.1"], kimg=SOON), COLLAPSE, codes=4),
    "eight images, hinge": failing(gan(settings=HINGE, kimg=SOON), COLLAPSE, codes=8),
    "one class of eight": failing(gan({**DCGAN, "num_classes": 8}, kimg=SOON), COLLAPSE, labels=1, codes=2),
    "generator x 100": failing(gan(kimg=LATE), OSCILLATES, DIVERGENCE, COLLAPSE, rates={"generator": 100}),
    "generator x 100, hinge": failing(
        gan(settings=HINGE, kimg=LATE), OSCILLATES, DIVERGENCE, COLLAPSE, rates={"generator": 100}),
    "momentum 0.95": failing(
        gan(settings={"lr": 4e-3, "betas": [0.95, 0.999]}, kimg=LATE), OSCILLATES, DIVERGENCE, COLLAPSE),
    "WGAN without a bound": failing(
        gan(settings={"lr": 1e-3, "loss": "wasserstein"}, kimg=SOON), DIVERGENCE, rates={"discriminator": 20}),
    "WGAN without a bound, small": failing(
        gan({**DCGAN, "generator_width": 8, "discriminator_width": 8}, settings={"lr": 1e-3, "loss": "wasserstein"},
            kimg=SOON), DIVERGENCE, rates={"discriminator": 50, "generator": 10}),
    "everything x 1000": failing(gan(settings={"lr": 1.0}, kimg=SOON), DIVERGENCE, COLLAPSE, OSCILLATES),
    "32 images": failing(gan(data=64, hold_out=32, kimg=LATE), OVERFITS, COPIES),
    "32 images, hinge": failing(gan(data=64, hold_out=32, kimg=LATE, settings=HINGE), OVERFITS, COPIES),
    "24 images, wide critic": failing(
        gan({**DCGAN, "discriminator_width": 32}, data=64, hold_out=40, kimg=LATE), OVERFITS, COPIES),
    "48 images": failing(gan(data=80, hold_out=32, kimg=LATE), OVERFITS, COPIES),
    "beta 200": failing(vae({"beta": 200.0, "free_bits": 0.0}, kimg=SOON), POSTERIOR),
    "beta 50, normal prior": failing(vae({"beta": 50.0, "free_bits": 0.0, "prior": "normal"}, kimg=SOON), POSTERIOR),
    "beta 1000 at once": failing(vae({"beta": 1000.0, "free_bits": 0.0, "warmup": 0.0}, kimg=SOON), POSTERIOR),
    "gaussian, beta 100": failing(
        vae({"beta": 100.0, "free_bits": 0.0, "likelihood": "gaussian"}, kimg=SOON), POSTERIOR),
}  # fmt: skip


def measure(arm: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Train one arm and return what the watchdog called it, first, with all that it saw."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    out, fault = folder / "run", arm["fault"]
    shutil.rmtree(out, ignore_errors=True)
    model = zoo.create(arm["architecture"], **arm["config"])
    recipe = model.recipe()
    if fault.get("bare"):
        recipe = without_penalties(recipe)
    for network, rate in fault.get("rates", {}).items():
        recipe = replace(recipe, phases=tuple(
            replace(phase, rate=rate * phase.rate) if network in phase.trains else phase for phase in recipe.phases
        ))  # fmt: skip
    if "codes" in fault:
        limit(model, fault["codes"], fault.get("labels"))
    ended = ""
    try:
        with hushed():
            zoo.train(model, images(arm, seed), kimg=arm["kimg"], out=out, seed=seed, recipe=recipe,
                      settings=arm["settings"], add=arm["add"], hold_out=arm["hold_out"], **SCHEDULE)  # fmt: skip
    except (Collapsed, Diverged) as error:
        ended = str(error)
    return {**scored(zoo.Run(out).log, arm["expected"]), "ended": ended}


@contextmanager
def hushed() -> Iterator[None]:
    """Keep warnings back meanwhile: they are what is measured."""
    logger = logging.getLogger("zoo")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def scored(log: Sequence[Mapping[str, Any]], expected: Sequence[str]) -> dict[str, Any]:
    """Return what a log says and whether that is right: 1 or 0, and None for what a healthy run cannot be."""
    first: dict[str, Mapping[str, Any]] = {}
    for line in log:
        for finding in line.get("findings", ()):
            first.setdefault(finding["name"], {**finding, "told": line["kimg"]})
    names = list(first)
    right = bool(names) and names[0] in expected
    return {
        "names": names,
        "findings": list(first.values()),
        "detected": int(bool(names)) if expected else None,
        "named": int(right) if expected else None,
        "false": None if expected else int(bool(names)),
        "looks": [{"kimg": line["kimg"], **line["watchdog"], "skipped": line.get("skipped", 0), "terms": line["terms"]}
                  for line in log if "watchdog" in line],
    }  # fmt: skip


def limit(model: zoo.Model, codes: int, labels: int | None) -> None:
    """Have a model make no more than so many images, and with `labels` those of so many classes alone."""
    whole, make = model.latent, model.get_submodule("generator")
    table = torch.randn(codes, model.latent_size, generator=torch.Generator().manual_seed(0))

    def latent(n: int, noise: Any, psi: float = 1.0) -> Tensor:
        z = whole(n, noise, psi)
        return table.to(z)[(z[:, 0] * 1000).long() % codes]

    model.latent = latent      # type: ignore[method-assign]
    if labels is not None:
        make.register_forward_pre_hook(lambda module, given: (given[0], _first(given[1], labels)))


def _first(onehot: Tensor, labels: int) -> Tensor:
    chosen = onehot.argmax(1) % labels
    return torch.nn.functional.one_hot(chosen, onehot.shape[1]).to(onehot)


def images(arm: Mapping[str, Any], seed: int) -> ImageSet:
    """Return the emoji at the size of the arm's model, or so many of them."""
    config = arm["config"]
    whole = open_images("emoji", resolution=config["resolution"], channels=config.get("channels", 3))
    if arm["data"] == "emoji":
        return whole
    return whole.only(np.sort(permutation(len(whole), "few", seed)[: arm["data"]]))


def plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw for each arm how long it ran, and where what was called by name."""
    from matplotlib.figure import Figure

    rows = sorted(runs, key=lambda run: (bool(run["settings"]["expected"]), run["arm"]), reverse=True)
    figure = Figure(figsize=(9, 1 + 0.2 * len(rows)), layout="constrained")
    axis = figure.subplots()
    words = (COLLAPSE, DIVERGENCE, OVERFITS, POSTERIOR, COPIES, OSCILLATES)
    for row, run in enumerate(rows):
        axis.plot([0, run["settings"]["kimg"]], [row, row], color="0.85", linewidth=5, solid_capstyle="butt", zorder=0)
    for index, word in enumerate(words):
        told = [(found["told"], row) for row, run in enumerate(rows) for found in run["results"]["findings"]
                if found["name"] == word]  # fmt: skip
        if told:
            axis.scatter(*zip(*told), color=f"C{index}", label=word, s=24)
    axis.set_yticks(range(len(rows)), [run["arm"] for run in rows], fontsize=7)
    axis.set_xlabel("thousand real images shown (kimg); a dot: what it was called, when it was told")
    axis.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is not known yet, and say how often the watchdog was right."""
    options = parser(__doc__)
    options.add_argument("--tuning", action="store_true", help="the seeds that thresholds are fixed on")
    chosen = options.parse_args()
    arms = {**{f"healthy: {name}": arm for name, arm in HEALTHY.items()},
            **{f"failing: {name}": arm for name, arm in FAILING.items()}}  # fmt: skip
    offset = 0 if chosen.tuning else SCORED
    challenge = Challenge(
        "watchdog_tuning" if chosen.tuning else "watchdog", arms,
        lambda arm, seed, folder: measure(arm, seed + offset, folder),
        ("detected", "named", "false"), seeds=1, quick={"kimg": 3.0}, plot=plot,
    )  # fmt: skip
    runs = carry_out(challenge, chosen)
    for run in runs:
        print(run["arm"], run["results"]["names"], f"{run['seconds']:.0f} s", file=sys.stderr)
    count = {name: [run["results"][name] for run in runs if run["results"][name] is not None]
             for name in ("detected", "named", "false")}  # fmt: skip
    print(", ".join(f"{name} {sum(values)}/{len(values)}" for name, values in count.items()))


if __name__ == "__main__":
    main()
