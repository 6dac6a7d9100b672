"""Time of Inception features and of the Frechet distance, against torch-fidelity and pytorch-fid.

Features: 2048 numbers of uint8 images of 32x32, float32, of the same weights; torch-fidelity's extractor beside ours.
Frechet distance: from features [n, 2048] of both sides to the value, and from means and covariances to the value;
pytorch-fid's, which takes scipy's matrix root, and torch-fidelity's beside ours. Sides take turns; what they give is
compared first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from document import machine, print_result

from zoo.data import open_images
from zoo.metrics import inception_weights
from zoo.metrics.frechet import Gaussian, frechet_distance, root
from zoo.metrics.names import extractor

PEERS = ("torch-fidelity", "pytorch-fid", "scipy")
DIMENSIONS = 2048


def peer_extractor(folder: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return torch-fidelity's extractor with the weights that ours has."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    state = inception_weights.load()
    biases = [name for name in state if name.endswith("bn.bias")]
    ones = {name.removesuffix("bias") + "weight": torch.ones_like(state[name]) for name in biases}
    head = {"fc.weight": torch.zeros(1008, DIMENSIONS), "fc.bias": torch.zeros(1008)}
    torch.save({**state, **ones, **head}, folder / "weights.pth")
    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", [str(DIMENSIONS)], feature_extractor_weights_path=str(folder / "weights.pth")
    ).eval()

    def features(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            (found,) = network(images)
        return found

    return features


def in_turns(sides: dict[str, Callable[[], Any]], repetitions: int) -> list[dict[str, float]]:
    """Return seconds of each side, one dictionary a repetition, after one that is not counted."""
    runs = []
    for _ in range(repetitions + 1):
        taken = {}
        for name, work in sides.items():
            begun = time.perf_counter()
            work()
            taken[name] = time.perf_counter() - begun
        runs.append(taken)
    return runs[1:]


def ratios(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Return for each peer the median and range of its seconds over ours."""
    seconds = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    found: dict[str, Any] = {"seconds, median": seconds}
    for name in runs[0]:
        if name != "zoo":
            over = sorted(run[name] / run["zoo"] for run in runs)
            found[f"{name} / zoo"] = {"median": statistics.median(over), "range": [over[0], over[-1]]}
    return found


def features(images: int, batch: int, repetitions: int) -> tuple[list[dict[str, float]], dict[str, Any]]:
    shown = open_images("emoji", resolution=32, channels=3).read(range(images))
    ours = extractor("inception")
    with tempfile.TemporaryDirectory() as folder:
        theirs = peer_extractor(Path(folder))
    apart = float((ours(shown[:batch]) - theirs(shown[:batch])).abs().max())
    parts = shown.split(batch)
    runs = in_turns(
        {"zoo": lambda: [ours(part) for part in parts], "torch-fidelity": lambda: [theirs(part) for part in parts]},
        repetitions,
    )
    return runs, {"images": images, "batch": batch, "largest difference": apart, **ratios(runs)}


def frechet(n: int, repetitions: int) -> tuple[list[dict[str, float]], dict[str, Any]]:
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    chance = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(n, DIMENSIONS, generator=chance).relu() * scale for scale in (1.0, 1.1))

    def with_scipy() -> float:
        sides = [(x.mean(0), np.cov(x, rowvar=False)) for x in (real.double().numpy(), fake.double().numpy())]
        return float(calculate_frechet_distance(*sides[0], *sides[1]))

    def with_torch_fidelity() -> float:
        sides = [fid_features_to_statistics(x) for x in (real, fake)]
        return float(fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"])

    sides = {
        "zoo": lambda: frechet_distance(real, fake)["fid"],
        "pytorch-fid (sqrtm)": with_scipy,
        "torch-fidelity": with_torch_fidelity,
    }
    values = {name: side() for name, side in sides.items()}
    runs = in_turns(sides, repetitions)
    return runs, {"images a side": n, "values": values, **ratios(runs)}


def frechet_of_covariances(n: int, repetitions: int) -> tuple[list[dict[str, float]], dict[str, Any]]:
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    chance = torch.Generator().manual_seed(0)
    given = [torch.randn(n, DIMENSIONS, generator=chance).relu().double() * scale for scale in (1.0, 1.1)]
    moments = [(x.mean(0), x.T.cov()) for x in given]
    arrays = [(mean.numpy(), covariance.numpy()) for mean, covariance in moments]

    def ours() -> float:
        one, other = (Gaussian(mean, covariance.trace(), root(covariance)) for mean, covariance in moments)
        return one.distance(other)

    def with_torch_fidelity() -> float:
        sides = [{"mu": mean, "sigma": covariance} for mean, covariance in arrays]
        return float(fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"])

    sides = {
        "zoo": ours,
        "pytorch-fid (sqrtm)": lambda: float(calculate_frechet_distance(*arrays[0], *arrays[1])),
        "torch-fidelity": with_torch_fidelity,
    }
    values = {name: side() for name, side in sides.items()}
    runs = in_turns(sides, repetitions)
    return runs, {"images a side": n, "values": values, **ratios(runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--frechet", type=int, nargs="*", default=[10_000, 1_000], help="images a side")
    given = parser.parse_args()
    before = machine()
    runs: list[Any] = []
    summary: dict[str, Any] = {}
    for n in given.frechet:
        taken, summary[f"frechet, {n}"] = frechet(n, given.repetitions)
        runs += [{"what": f"frechet, {n}", **run} for run in taken]
    taken, summary["frechet of covariances"] = frechet_of_covariances(max(given.frechet), given.repetitions)
    runs += [{"what": "frechet of covariances", **run} for run in taken]
    taken, summary["features"] = features(given.images, given.batch, given.repetitions)
    runs += [{"what": "features", **run} for run in taken]
    print_result(before, runs, summary, {name: version(name) for name in PEERS})


if __name__ == "__main__":
    main()
