"""What does the watchdog cost? Processor time of its looks over that of the rest of the training, for small networks.

Small networks are the worst case: what a look computes of features is the same for all. Processor time of one thread,
not time of day: it hardly depends on what else the machine does.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from document import machine, print_result

import zoo
from zoo.model import Model
from zoo.watchdog.look import Eye
from zoo.watchdog.readings import EVERY, SAMPLES, Seen

LOOKS = 3
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dcgan, 16x16, 16 channels": ("dcgan", {"resolution": 16, "generator_width": 16, "discriminator_width": 16}),
    "dcgan, 32x32, 16 channels": ("dcgan", {"resolution": 32, "generator_width": 16, "discriminator_width": 16}),
    "vae, 32x32, 8 channels": ("vae", {"resolution": 32, "width": 8, "widest": 32, "latent": 16, "prior_width": 32}),
}


class Timed:
    """Takes the processor time of every look."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._look = Eye.look

    def __call__(self, eye: Eye, model: Model) -> Seen:
        begun = time.process_time()
        seen = self._look(eye, model)
        self.seconds.append(time.process_time() - begun)
        return seen


def measure(name: str, architecture: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return processor seconds of each look, of the whole training, and the share of the looks after the first."""
    timed = Timed()
    Eye.look = lambda eye, model: timed(eye, model)      # type: ignore[method-assign]
    try:
        torch.manual_seed(0)
        model = zoo.create(architecture, **config)
        with tempfile.TemporaryDirectory() as folder:
            begun = time.process_time()
            zoo.train(model, "emoji", kimg=LOOKS * EVERY * SAMPLES / 1000, out=Path(folder) / "run",
                      sample_kimg=1000, checkpoint_kimg=1000)  # fmt: skip
            whole = time.process_time() - begun
    finally:
        Eye.look = timed._look      # type: ignore[method-assign]
    rest = (whole - sum(timed.seconds)) / LOOKS      # of as many images as lie between two looks
    later = statistics.median(timed.seconds[1:])
    shares = {"first": timed.seconds[0] / rest, "share": later / rest}
    return {"kind": name, "looks": timed.seconds, "whole": whole, **shares}


def main() -> None:
    """Measure each kind once: every look after the first is a measurement of its own."""
    torch.set_num_threads(1)
    before = machine()
    runs = [measure(name, *kind) for name, kind in KINDS.items()]
    print_result(before, runs, {run["kind"]: {"share": run["share"], "with the first": run["first"]} for run in runs})


if __name__ == "__main__":
    main()
