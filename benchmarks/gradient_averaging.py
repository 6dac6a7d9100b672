"""Gradients sent in buckets while the backward runs, against one flat tensor afterwards: ratios of time per turn.

Both sides are zoo's own: the question is which of them a device should use. Every process plays the same phases of the
same model; sides take turns. A ratio below 1 says that buckets are faster.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from contextlib import nullcontext

import torch
from document import machine, print_result
from torch import distributed, multiprocessing

import zoo
from zoo.noise import Noise, key
from zoo.recipe import Batch
from zoo.training.gradients import BUCKET, Gradients

MODELS = {
    "stylegan": {"resolution": 64, "channel_base": 4096, "channel_max": 256},
    "dcgan": {"resolution": 64},
}
SIDES = {"flat": None, "buckets": BUCKET}


def worker(rank: int, name: str, processes: int, repeats: int, images: int, port: int, results: list) -> None:
    """Time turns of every phase in one of several processes, and leave what the first one measured in `results`."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=processes)
    torch.manual_seed(0)
    model = zoo.create(name, **MODELS[name]).to(memory_format=torch.channels_last).train()
    for phase in model.recipe().phases:
        model.requires_grad_(False)
        for network in phase.trains:
            model.get_submodule(network).requires_grad_(True)
        parameters = [value for value in model.parameters() if value.requires_grad]
        sides = {side: Gradients(parameters, bucket=bucket) for side, bucket in SIDES.items()}
        means = {side: [] for side in sides}
        for repeat in range(-1, repeats):
            order = list(sides) if repeat % 2 else list(reversed(sides))
            for side in order:
                noise = Noise(key(repeat), share=rank, shares=processes)
                real = noise.uniform(images, 3, 64, 64) * 2 - 1
                distributed.barrier()
                begun = time.perf_counter()
                loss = phase.loss(model, Batch(real, None, noise)).total()
                with sides[side].collected() if SIDES[side] else nullcontext():
                    torch.autograd.backward(loss)
                sides[side].average(torch.zeros(3))
                distributed.barrier()
                taken = time.perf_counter() - begun
                means[side] = [value.grad.clone() for value in parameters if value.grad is not None]
                for value in parameters:
                    value.grad = None
                if rank == 0 and repeat >= 0:
                    results.append({"phase": phase.name, "side": side, "repeat": repeat, "seconds": round(taken, 5)})
            equal = all(map(torch.equal, means["flat"], means["buckets"]))
            largest = max(float((a - b).abs().max()) for a, b in zip(means["flat"], means["buckets"]))
            assert largest < 1e-5, f"{phase.name}: the sides differ by {largest}"
            if rank == 0 and repeat == 0:
                numbers = sum(value.numel() for value in parameters)
                results.append({"phase": phase.name, "numbers": numbers, "buckets": len(sides["buckets"]),
                                "bit_equal": equal})  # fmt: skip
    distributed.destroy_process_group()


def measured(name: str, processes: int, repeats: int, images: int) -> list[dict]:
    """Return every measurement of one model in so many processes."""
    port = 29000 + os.getpid() % 1000 + processes
    with multiprocessing.Manager() as manager:
        results = manager.list()
        arguments = (name, processes, repeats, images, port, results)
        multiprocessing.spawn(worker, arguments, nprocs=processes)
        return [{"model": name, "processes": processes, **each} for each in results]


def summary(runs: list[dict]) -> list[dict]:
    """Return the ratio of paired times, buckets / flat, of each model, phase and number of processes."""
    found = []
    keys = dict.fromkeys((run["model"], run["processes"], run["phase"]) for run in runs)
    for model, processes, phase in keys:
        mine = [run for run in runs if (run["model"], run["processes"], run["phase"]) == (model, processes, phase)]
        flat, buckets = ([run["seconds"] for run in mine if run.get("side") == side] for side in SIDES)
        ratios = sorted(b / a for a, b in zip(flat, buckets))
        found.append({
            "model": model, "processes": processes, "phase": phase, "ratio_median": round(statistics.median(ratios), 3),
            "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
            "flat_seconds_median": round(statistics.median(flat), 4),
        })  # fmt: skip
    return found


def main() -> None:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeats", type=int, default=11)
    options.add_argument("--images", type=int, default=4, help="of each process in each turn")
    options.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    options.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    chosen = options.parse_args()
    before = machine()
    runs = [
        run for name in chosen.models for processes in chosen.processes
        for run in measured(name, processes, chosen.repeats, chosen.images)
    ]  # fmt: skip
    print_result(before, runs, summary(runs))


if __name__ == "__main__":
    main()
