"""Eight modes on a ring and twenty-five on a grid: which losses and additions find them all, and hit them.

Data and evaluation are PacGAN's (Lin et al., 2018, arXiv:1712.04086, section 4.1): 2,500 samples, of high quality
within three standard deviations of a mode. Networks and length are not: all arms have smaller networks and far fewer
steps than the paper's 400 epochs, and all but `published` the networks and the optimiser of the recommended one, which
alone goes on for 10,000 steps, on the grid for 16,000: `relativistic+r1+r2` is the same at the length of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import harness
from mixtures import MIXTURES, trained

COLUMNS = ("modes", "least_modes_late", "high_quality", "reverse_kl", "broken_steps")
# Without batch norm in the generator: with it, far more samples lie between the modes of the grid for far longer.
NETWORKS: dict[str, Any] = {
    "generator_width": 128, "generator_norm": False, "discriminator_width": 128, "pieces": 2,
}  # fmt: skip
OPTIMISER: dict[str, Any] = {"lr": 2e-3, "betas": (0.0, 0.99), "batch": 256, "anneal": "cosine",
                             "averaged": ("generator",), "ema_kimg": 10.0}  # fmt: skip
COMMON: dict[str, Any] = {"steps": 4000, "model": NETWORKS, "recipe": OPTIMISER}
GAMMA = (0.1, 0.001)      # of R1 and R2, first and last
CRITIC = "critic_steps:n=5"

LOSSES: dict[str, dict[str, Any]] = {
    "recommended": {"loss": "relativistic", "gamma": GAMMA},
    "relativistic+r1+r2": {"loss": "relativistic", "gamma": GAMMA},
    "nonsaturating": {},
    "hinge": {"loss": "hinge"},
    "least_squares": {"loss": "least_squares"},
    "wasserstein+weight_clipping": {"loss": "wasserstein", "add": ("weight_clipping", CRITIC)},
    "wasserstein+gradient_penalty": {"loss": "wasserstein", "add": ("gradient_penalty", CRITIC)},
    "dragan": {"add": ("dragan",)},
    "r1": {"add": ("r1:gamma=0.1",)},
    "r1+r2": {"gamma": GAMMA},
    "relativistic": {"loss": "relativistic"},
    "relativistic+r1": {"loss": "relativistic", "add": ("r1:gamma=0.1",)},
    "pacgan": {"add": ("pacgan:m=2",)},
    "mode_seeking": {"add": ("mode_seeking",)},
    "spectral_norm": {"loss": "hinge", "add": ("spectral_norm",)},
    "bures": {"add": ("bures",)},
    "minibatch_std": {"add": ("minibatch_std",)},
    "unrolled": {"add": ("unrolled:steps=5,rate=0.001",)},
    "minimax": {"loss": "minimax"},
    "relativistic_average": {"loss": "relativistic_average"},
    "instance_noise": {"add": ("instance_noise",)},
    "top_k": {"add": ("top_k",)},
    "published": {"model": {}, "recipe": {}},
}
LONGER = {"ring/recommended": {"steps": 10_000}, "grid/recommended": {"steps": 16_000}}
ARMS = {
    (arm := f"{mixture}/{name}"): {"mixture": mixture, **COMMON, **settings, **LONGER.get(arm, {})}
    for name, settings in LOSSES.items() for mixture in MIXTURES
}  # fmt: skip


def measure(settings: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Train an arm: there is nothing to go on with, as it takes a few minutes."""
    results = trained(settings, seed)
    if seed:
        del results["points"]      # one picture of each is enough
    return results


def plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw some points of each arm's first seed around the modes."""
    from matplotlib import pyplot

    first = {run["arm"]: run for run in runs if run["seed"] == 0}
    drawn = [first[name] for name in ARMS if name in first]
    across = min(8, len(drawn))
    down = -(-len(drawn) // across)
    size = (2.2 * across, 2.4 * down)
    figure, axes = pyplot.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    for place in axes.flat:
        place.set_axis_off()
    for place, run in zip(axes.flat, drawn):
        mixture, results = MIXTURES[run["settings"]["mixture"]](), run["results"]
        place.scatter(*mixture.means.T, s=40, facecolors="none", edgecolors="tab:orange")
        place.scatter(*zip(*results["points"]), s=1)
        side = 1.3 * float(mixture.means.abs().max())
        place.set(xlim=(-side, side), ylim=(-side, side), aspect="equal")
        place.set_title(f"{run['arm']}\n{results['modes']} modes, {results['high_quality']:.0%}", fontsize=8)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main() -> None:
    """Measure what is not known yet."""
    harness.carry_out(
        harness.Challenge("points", ARMS, measure, COLUMNS, quick={"steps": 20}, plot=plot),
        harness.parser(__doc__).parse_args(),
    )


if __name__ == "__main__":
    main()
