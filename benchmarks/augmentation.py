"""What augmentation costs: a step of StyleGAN2 with each kind against the same step without, as ratios of time.

A step is every phase of the recipe once, so lazy penalties weigh more than in a training. Sides take turns in one
process; a ratio of 1.03 says that 3 % is added.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch
from document import machine, print_result

import zoo
from zoo.noise import Noise, key
from zoo.recipe import Batch
from zoo.training.augmentation import Augmenter

SIDES = {
    "none": (),
    "diffaugment": ("color", "translation", "cutout"),
    "ada": ("ada",),
    "ada:bgcfnc": ("ada:bgcfnc",),
}


def step(model: zoo.Model, augmenter: Augmenter, images: torch.Tensor, repeat: int) -> float:
    """Return the seconds that every phase takes once, without the optimiser."""
    begun = time.perf_counter()
    for index, phase in enumerate(model.recipe().phases):
        model.requires_grad_(False)
        for network in phase.trains:
            model.get_submodule(network).requires_grad_(True)
        augmenter.draw(Noise(key(repeat, "augment", index), device=model.device))
        terms = phase.loss(model, Batch(images, None, Noise(key(repeat, index), device=model.device)))
        terms.total().backward()
        model.zero_grad(set_to_none=True)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def measured(repeats: int, images: int, p: float) -> list[dict]:
    """Return every measurement, the first of each side left out."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = zoo.create("stylegan", resolution=64, channel_base=4096, channel_max=256).train()
    model.to(device).to(memory_format=torch.channels_last)
    recipe = replace(model.recipe(), ada_target=None, ada_p=p)
    sides = {name: Augmenter(replace(recipe, augment=parts), model) for name, parts in SIDES.items()}
    runs = []
    for repeat in range(-1, repeats):
        real = Noise(key(repeat), device=device).uniform(images, 3, 64, 64) * 2 - 1
        real = real.contiguous(memory_format=torch.channels_last)
        for name in list(sides) if repeat % 2 else list(reversed(sides)):
            with sides[name].attached():
                taken = step(model, sides[name], real, repeat)
            runs.append({"side": name, "repeat": repeat, "seconds": round(taken, 4)})
    return [run for run in runs if run["repeat"] >= 0]


def summary(runs: list[dict]) -> list[dict]:
    """Return the ratio of each side's times to those without augmentation, paired by repeat."""
    seconds = {(run["side"], run["repeat"]): run["seconds"] for run in runs}
    repeats = sorted({run["repeat"] for run in runs})
    found = []
    for name in SIDES:
        ratios = sorted(seconds[name, repeat] / seconds["none", repeat] for repeat in repeats)
        found.append({"side": name, "ratio_median": round(statistics.median(ratios), 3),
                      "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)]})  # fmt: skip
    return found


def main() -> None:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--images", type=int, default=16)
    options.add_argument("--p", type=float, default=0.5, help="ADA's probability, fixed")
    chosen = options.parse_args()
    before = machine()
    runs = measured(chosen.repeats, chosen.images, chosen.p)
    print_result(before, runs, summary(runs))


if __name__ == "__main__":
    main()
