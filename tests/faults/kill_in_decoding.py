"""Kill processes while they decode images into zoo's home: is only a whole folder ever used, and is nothing left over?

Each round starts two processes on one image folder with an empty home and kills one of them, or both, with SIGKILL at a
random moment. The other one, or a third, must then have every pixel right, and beside the one folder no draft may stay.

    python tests/faults/kill_in_decoding.py [--count 200] [--seed 0]
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zoo.data import ImageSet, open_images

N, SIZE, RESOLUTION = 300, 96, 24
forking = multiprocessing.get_context("fork")      # the interpreter has torch already


def make_images(folder: Path) -> None:
    for index in range(N):
        path = folder / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, compress_level=1)


def look(folder: Path, home: Path, told: Connection) -> None:
    os.environ["ZOO_HOME"] = str(home)
    told.send("begun")
    images = open_images(folder, resolution=RESOLUTION, channels=3, cache=0, memory=0)
    told.send(digest(images))


def digest(images: ImageSet) -> str:
    return hashlib.sha256(images.read(range(len(images))).numpy().tobytes()).hexdigest()


class Child:
    """A process that opens the images."""

    def __init__(self, folder: Path, home: Path):
        self.hears, told = forking.Pipe(duplex=False)
        self.process = forking.Process(target=look, args=(folder, home, told))
        self.process.start()

    def said(self) -> str:
        return str(self.hears.recv()) if self.hears.poll(60) else "nothing in a minute"


def round_of(folder: Path, home: Path, right: str, seconds: float, chance: random.Random) -> str | None:
    """Return what went wrong, or None."""
    shutil.rmtree(home, ignore_errors=True)
    both = [Child(folder, home), Child(folder, home)]
    try:
        for child in both:
            child.said()
        time.sleep(chance.uniform(0, 2 * seconds))
        killed = both if chance.random() < 0.5 else both[:1]
        for child in killed:
            child.process.kill()
        if len(killed) == 2:
            both.append(Child(folder, home))
            both[-1].said()
        found = both[-1].said()
    finally:
        for child in both:
            child.process.kill()
            child.process.join()
    if found != right:
        return f"{found} instead of {right}"
    left = sorted(path.name for path in (home / "images").iterdir() if path.is_dir())
    return None if len(left) == 1 and not left[0].startswith(".") else f"left behind: {left}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chance, good = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as temporary:
        place = given.folder or Path(temporary)
        make_images(place / "photos")
        begun = time.monotonic()
        right = digest(open_images(place / "photos", resolution=RESOLUTION, channels=3, cache=None))
        seconds = time.monotonic() - begun
        for number in range(given.count):
            wrong = round_of(place / "photos", place / "home", right, seconds, chance)
            good += wrong is None
            if number % 20 == 19:
                print(f"{number + 1}/{given.count}", flush=True)
            if wrong:
                print(f"round {number}: {wrong}", flush=True)
    print(f"{good}/{given.count} whole after a kill")
    return 0 if good == given.count else 1


if __name__ == "__main__":
    sys.exit(main())
