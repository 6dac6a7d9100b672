"""Training with a checkpoint every 30 seconds against training without any: images per second, as a ratio.

Both sides are zoo's own and train a small StyleGAN2 of 64 pixels (64S) on the bundled images, the same steps from the
same seed, in turns and in one process. What is timed is a window of as many images as take 30 seconds; on the one side
one checkpoint is saved and written within it. A ratio of 1 says that checkpoints cost nothing.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from document import machine, print_result

import zoo
from zoo.training import checkpoints

MODEL = {"resolution": 64, "channel_base": 4096, "channel_max": 256}
BATCH = 8
NEVER = 1e6      # kimg


class Enough(Exception):
    """The window is over: what comes at the end of a training is not of interest."""


def trained(out: Path, steps: int, every: float) -> tuple[list[float], dict[str, float]]:
    """Train so many steps with a checkpoint every so many kimg; return when each ended, and what the last one lost."""
    torch.manual_seed(0)
    model = zoo.create("stylegan", **MODEL)
    ended: list[float] = []
    last: dict[str, float] = {}

    def progress(done: float, total: float, means: Mapping[str, float]) -> None:
        ended.append(time.perf_counter())
        if len(ended) == steps:
            last.update(means)
            raise Enough

    with suppress(Enough):
        zoo.train(model, "emoji", out=out, batch=BATCH, kimg=NEVER, tick_kimg=BATCH / 1000, sample_kimg=NEVER,
                  checkpoint_kimg=every, keep=3, progress=progress)  # fmt: skip
    last.pop("images_per_second")
    return ended, last


def measured(out: Path, side: str, plan: dict[str, int]) -> dict[str, Any]:
    """Return one measurement: images per second in the window, what the last step lost, the checkpoint's size."""
    every = plan["checkpoint"] * BATCH / 1000 if side == "with" else NEVER
    ended, last = trained(out, plan["end"], every)
    seconds = ended[plan["end"] - 1] - ended[plan["begin"] - 1]
    saved = [checkpoints.step_of(path) for path in checkpoints.steps(out / "checkpoints")]
    assert saved == ([0, plan["checkpoint"]] if side == "with" else [0]), f"not all of {saved} in the window"
    images = (plan["end"] - plan["begin"]) * BATCH
    size = sum(file.stat().st_size for file in checkpoints.steps(out / "checkpoints")[-1].iterdir())
    shutil.rmtree(out)
    return {"side": side, "images": images, "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 4), "checkpoint_mib": round(size / 2**20, 1),
            "last": last}  # fmt: skip


def planned(out: Path, window: float) -> dict[str, int]:
    """Warm up, and return the steps at which the window begins, the checkpoint comes and the window ends."""
    ended, _ = trained(out, 20, NEVER)
    shutil.rmtree(out)
    step = (ended[-1] - ended[3]) / 16      # lazy regularisation comes every 16th step at most
    begin, length = max(4, round(5 / step)), max(8, round(window / step))      # the first step's is written by then
    # Checkpoints come at multiples: this one is alone in the window, for it comes in the second half of the training.
    return {"begin": begin, "checkpoint": (begin + begin + length) // 2 + 1, "end": begin + length}


def main() -> int:
    """Measure and print one JSON document."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeats", type=int, default=5, help="pairs of trainings")
    options.add_argument("--window", type=float, default=30.0, help="seconds between two checkpoints")
    options.add_argument("--out", type=Path, help="folder on the disk to write to; default: the system's for such")
    options.add_argument("--quick", action="store_true", help="two pairs of ten seconds, to see that it works")
    chosen = options.parse_args()
    repeats, window = (2, 10.0) if chosen.quick else (chosen.repeats, chosen.window)
    before = machine()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=chosen.out) as folder:
        out = Path(folder) / "run"
        plan = planned(out, window)
        for repeat in range(repeats):
            pair = {}
            for side in ("with", "without") if repeat % 2 else ("without", "with"):
                pair[side] = measured(out, side, plan)
                print(f"{repeat}: {side}: {pair[side]['images_per_second']:.3f} images/s", file=sys.stderr)
            assert pair["with"]["last"] == pair["without"]["last"], "the sides did different work"
            runs += [{"repeat": repeat, **pair[side]} for side in pair]
    ratios = sorted(
        with_["images_per_second"] / without["images_per_second"]
        for with_, without in zip(*([run for run in runs if run["side"] == side] for side in ("with", "without")))
    )
    summary = {"ratio_median": round(statistics.median(ratios), 4), "ratio_range": [round(ratios[0], 4),
               round(ratios[-1], 4)], "demanded": 0.97,
               "seconds_between_checkpoints": window, "steps": plan, "batch": BATCH, "model": MODEL}  # fmt: skip
    print_result(before, runs, summary)
    return 0 if summary["ratio_median"] >= summary["demanded"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
