"""Damage the newest checkpoint in every file: is it noticed, is the one before used, and is there one warning line?

Each file is cut at random lengths (0 among them), has single bits flipped, and is taken away.

    python tests/faults/damaged_checkpoints.py [--count 200] [--seed 0]
"""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from zoo.training import checkpoints
from zoo.training.checkpoints import Checkpoint

FILES = ("model.safetensors", "optimizer.safetensors", "ranks.safetensors", "state.json", "manifest.json")


def made(step: int) -> Checkpoint:
    torch.manual_seed(step)
    return Checkpoint(
        step,
        {"generator.weight": torch.randn(4, 3), "generator.count": torch.tensor(step)},
        {"generator/exp_avg/generator.weight": torch.randn(4, 3)},
        {"0/rng/torch": torch.get_rng_state()[:16]},
        {"kimg": step / 100, "seconds": 1.5, "scalers": {"generator": {}}, "augmentation": {"chance": 0.1}},
        {"kimg": step / 100, "config": "0f" * 32, "versions": {"torch": torch.__version__}, "processes": 2},
    )


def damages(content: bytes, cuts: int, flips: int, chance: random.Random) -> Iterator[tuple[str, bytes | None]]:
    """Give what to call a damage and what the file then holds; None: nothing, it is missing."""
    yield "missing", None
    for length in [0, *(chance.randrange(1, len(content)) for _ in range(cuts - 1))][:cuts]:
        yield f"cut to {length} of {len(content)} bytes", content[:length]
    for bit in chance.sample(range(8 * len(content)), min(flips, 8 * len(content))):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} flipped", bytes(flipped)


def fault(directory: Path, warnings: list[str]) -> str | None:
    """Return what is wrong with what is chosen beside a damaged step 2, or None."""
    warnings.clear()
    found = checkpoints.newest(directory)
    if found is None or found.step != 1:
        return f"chosen: {found and found.step}"
    if len(warnings) != 1 or "00000002 is damaged" not in warnings[0] or "\n" in warnings[0]:
        return f"warnings: {warnings}"
    if not all(torch.equal(found.model[name], tensor) for name, tensor in made(1).model.items()):
        return "another one's values"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="flips of each file; a tenth as many cuts")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    warnings: list[str] = []
    logging.getLogger("zoo").addFilter(lambda record: bool(warnings.append(record.getMessage())))
    good = count = 0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for step in (1, 2):
            checkpoints.write(directory, made(step))
        for each in FILES:
            path, before = directory / "00000002" / each, count
            content = path.read_bytes()
            for what, instead in damages(content, asked.count // 10, asked.count, chance):
                path.unlink() if instead is None else path.write_bytes(instead)
                wrong = fault(directory, warnings)
                path.write_bytes(content)
                good, count = good + (wrong is None), count + 1
                if wrong is not None:
                    print(f"{each}, {what}: {wrong}")
            print(f"{each}: {count - before} damages", flush=True)
        warnings.clear()
        whole = checkpoints.newest(directory)
        assert whole is not None, "none is found where all files are right again"
        assert (whole.step, warnings) == (2, [])
    print(f"{good}/{count} noticed, the one before used")
    return 0 if good == count else 1


if __name__ == "__main__":
    raise SystemExit(main())
