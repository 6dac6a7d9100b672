"""Images per second that reach a training at 64x64, against what training consumes and against torch's DataLoader.

Ours: from memory, from the mapped cache of decoded images (the path of sets larger than memory), and decoded on demand
with 0 and 2 threads. Peer: `torch.utils.data.DataLoader` over torchvision's `ImageFolder`, which decodes on demand,
with 0 and 2 processes. Consumption: `zoo.train` of a StyleGAN2 with the settings STYLEGAN, batch 16, on the same images
in the same run. Sides take turns; pixels are compared first. The files are in the page cache on every side.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from document import machine, print_result
from PIL import Image
from torchvision import datasets, transforms

import zoo
from zoo.data import batches, open_images

STYLEGAN = {"resolution": 64, "channel_base": 4096, "channel_max": 256}
RESOLUTION, BATCH, SIZE = 64, 16, 256


def write_images(folder: Path, indices: range) -> None:
    """Write smooth noise as JPEGs of SIZE x SIZE, about 20 kB each, as photographs of that size take."""
    for index in indices:
        chance = np.random.default_rng(index)
        coarse = Image.fromarray(chance.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels = (smooth + chance.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        path = folder / f"class{index % 4}" / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=85)


def make_images(folder: Path, count: int) -> None:
    cores = os.cpu_count() or 1
    parts = [range(first, count, cores) for first in range(cores)]
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(write_images, [folder] * cores, parts))


def peer(folder: Path, workers: int) -> tuple[Any, Iterator[Any]]:
    """Return the peer's data set, and its endless batches."""
    shaped = [transforms.Resize(RESOLUTION, transforms.InterpolationMode.LANCZOS), transforms.CenterCrop(RESOLUTION)]
    images = datasets.ImageFolder(str(folder), transforms.Compose([*shaped, transforms.PILToTensor()]))
    loader = torch.utils.data.DataLoader(
        images, batch_size=BATCH, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
    )
    return images, chain.from_iterable(repeat(loader))


def opened(folder: Path, **options: Any) -> Any:
    return open_images(folder, resolution=RESOLUTION, channels=3, **options)


def timed(make: Any) -> tuple[Any, float]:
    begun = time.perf_counter()
    made = make()
    return made, time.perf_counter() - begun


def speed(stream: Iterator[Any], seconds: float) -> float:
    """Return images per second of a stream that is warm."""
    for _ in range(4):
        next(stream)
    count, begun = 0, time.perf_counter()
    while (taken := time.perf_counter() - begun) < seconds:
        pixels, _ = next(stream)
        count += len(pixels)
    return count / taken


def starts(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Open the images in each way: return the sets, and how long each took until the first batch could be made."""
    ways = {
        "decoded in memory": {"cache": None},
        "cache made": {"cache": 0},
        "cache found": {"cache": 0},
        "cache found, larger than memory": {"cache": 0, "memory": 0},
        "on demand, 0 threads": {"cache": None, "memory": 0},
        "on demand, 2 threads": {"cache": None, "memory": 0, "workers": 2},
    }
    sets, runs = {}, []
    for way, options in ways.items():
        sets[way], taken = timed(lambda options=options: opened(folder, **options))
        runs.append({"what": f"start: {way}", "seconds": round(taken, 4)})
    return sets, runs


def consumption(images: Any, ticks: int, steps: int, out: Path) -> list[dict[str, Any]]:
    """Return images per second of a training, tick by tick; the first one warms up."""
    torch.manual_seed(0)
    model = zoo.create("stylegan", **STYLEGAN)
    tick = steps * BATCH / 1000
    run = zoo.train(
        model, images, kimg=tick * (ticks + 1), batch=BATCH, out=out,
        tick_kimg=tick, sample_kimg=1000.0, checkpoint_kimg=1000.0,
    )  # fmt: skip
    return [
        {"what": "training", "repeat": number, "images_per_second": line["images_per_second"]}
        for number, line in enumerate(run.log[1:])
    ]


def measured(folder: Path, given: argparse.Namespace, out: Path) -> list[dict[str, Any]]:
    sets, runs = starts(folder)
    theirs, _ = peer(folder, 0)
    first = list(range(0, len(theirs), max(1, len(theirs) // 64)))
    same = torch.equal(torch.stack([theirs[index][0] for index in first]), sets["cache found"].read(first))
    runs.append({"what": "pixels equal to the peer's", "value": same})
    runs += consumption(sets["cache found"], given.ticks, given.steps, out)
    streams = {way: batches(each, batch=BATCH, seed=0) for way, each in sets.items() if way != "cache made"}
    streams |= {f"DataLoader, {workers} processes": peer(folder, workers)[1] for workers in (0, 2)}
    for number in range(given.repeats):
        for way in list(streams)[:: 1 if number % 2 else -1]:
            fast = round(speed(streams[way], given.seconds), 1)
            runs.append({"what": way, "repeat": number, "images_per_second": fast})
    return runs


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return median and range of each way, and its ratio to what training consumes and to the better peer."""
    speeds: dict[str, list[float]] = {}
    for run in runs:
        if "images_per_second" in run:
            speeds.setdefault(run["what"], []).append(run["images_per_second"])
    middle = {way: statistics.median(values) for way, values in speeds.items()}
    best = max(value for way, value in middle.items() if way.startswith("DataLoader"))
    return [
        {
            "what": way,
            "images_per_second_median": middle[way],
            "range": [min(values), max(values)],
            "times_training": round(middle[way] / middle["training"], 1),
            "times_peer": round(middle[way] / best, 2),
        }
        for way, values in speeds.items()
    ]


def main() -> None:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=4000)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options.add_argument("--ticks", type=int, default=3, help="of the training that are measured, after one to warm up")
    options.add_argument("--steps", type=int, default=16, help="of a tick: 16 hold one of each lazy penalty")
    given = options.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as name:
        os.environ["ZOO_HOME"] = str(Path(name, "home"))
        make_images(Path(name, "photos"), given.images)
        runs = measured(Path(name, "photos"), given, Path(name, "run"))
    print_result(before, runs, summary(runs), {"torchvision": torchvision.__version__})


if __name__ == "__main__":
    main()
