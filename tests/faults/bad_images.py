"""Train on folders with one bad image of each kind: is it named, converted or left out, and does the training go on?

Each case writes real files, trains a tiny model on them with `zoo.train`, in memory, from decoded images on disk, and
on demand, and looks at the run, the weights and every line that was logged.

    python tests/faults/bad_images.py [--only WORD] [--short]
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import re
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import zoo
from zoo.data import ImageSet, batches, open_images
from zoo.errors import DataError, ZooError

TINY = {"resolution": 16, "latent": 8, "generator_width": 8, "discriminator_width": 8}
GOOD = 12
RED, BLUE = (255, 0, 0), (0, 0, 255)
STORES = {"in memory": {"cache": None}, "kept": {"cache": 0, "memory": 0}, "on demand": {"cache": None, "memory": 0}}


@dataclass(frozen=True)
class Case:
    """A way to spoil a folder of good images, and what must become of it."""

    name: str
    make: Callable[[Path], None]
    skipped: str = ""                     # pattern of the reason for which `bad.*` is left out; empty: it is read
    pixel: tuple[int, ...] | None = None  # middle of `bad.*` as it is read
    refused: str = ""                     # pattern of the one line that refuses the whole set
    images: int | None = None             # images that are left; None: the good ones, and the bad one if it is read


def noise(size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (*size, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# Each makes bad.SUFFIX; GOOD other images are there already.


def corrupt_jpeg(folder: Path) -> None:
    content = encoded(noise(), "JPEG")
    (folder / "bad.jpg").write_bytes(content[:20] + b"\xff\xd8\x00" * 50 + content[170:])


def zero_bytes(folder: Path) -> None:
    (folder / "bad.png").touch()


def truncated_png(folder: Path) -> None:
    content = encoded(noise(), "PNG")
    (folder / "bad.png").write_bytes(content[: len(content) // 2])


def cmyk(folder: Path) -> None:
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(folder / "bad.jpg", quality=95)


def sixteen_bits(folder: Path) -> None:
    Image.fromarray(np.full((32, 32), 128 * 257, dtype=np.uint16)).save(folder / "bad.png")


def animation(kind: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        frames = [Image.new("RGB", (32, 32), fill) for fill in (RED, BLUE)]
        frames[0].save(folder / f"bad.{kind}", save_all=True, append_images=frames[1:], duration=50, lossless=True)

    return make


def animations(folder: Path) -> None:
    animation("gif")(folder)
    animation("webp")(folder)


def grey(folder: Path) -> None:
    Image.new("L", (32, 32), 77).save(folder / "bad.png")


def palette(folder: Path) -> None:
    image = Image.new("P", (32, 32), 0)
    image.putpalette([*RED, *BLUE])
    image.save(folder / "bad.png", transparency=0)


def rotated(folder: Path) -> None:
    """The left half is red; turned upright, the upper half is."""
    image, exif = Image.new("RGB", (32, 32), BLUE), Image.Exif()
    image.paste(RED, (0, 0, 16, 32))
    exif[0x0112] = 6
    image.save(folder / "bad.jpg", exif=exif, quality=95)


def bomb(folder: Path) -> None:
    content = bytearray(encoded(Image.new("RGB", (1, 1)), "PNG"))
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (folder / "bad.png").write_bytes(content)


def extremes(folder: Path) -> None:
    Image.new("RGB", (1, 1), BLUE).save(folder / "bad.png")
    wide = Image.new("RGB", (20_000, 10), RED)
    wide.paste(BLUE, (9_990, 0, 10_010, 10))
    wide.save(folder / "bad2.png")
    wide.transpose(Image.Transpose.ROTATE_90).save(folder / "bad3.png")


def no_image(folder: Path) -> None:
    (folder / "bad.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n")
    (folder / "notes.txt").write_text("left alone")


def forbidden(folder: Path) -> None:
    Image.new("RGB", (32, 32), RED).save(folder / "bad.png")
    (folder / "bad.png").chmod(0)


def loop(folder: Path) -> None:
    (folder / "bad.png").symlink_to("bad.png")
    (folder / "again").symlink_to(folder)


def name_without_utf8(folder: Path) -> None:
    place = os.path.join(os.fsencode(folder), b"bad\xff\n.png")
    with open(place, "wb") as file:
        file.write(encoded(Image.new("RGB", (32, 32), BLUE), "PNG"))


def keep(count: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for path in sorted(folder.iterdir())[count:]:
            path.unlink()

    return make


def duplicates(folder: Path) -> None:
    content = (folder / "00.png").read_bytes()
    (folder / "bad.png").write_bytes(content)
    (folder / "twin.png").symlink_to("00.png")


BAD = r"[a-z].{4,120}"      # a reason in words
CASES = (
    Case("177 corrupt JPEG", corrupt_jpeg, skipped=BAD),
    Case("178 zero bytes", zero_bytes, skipped="not an image"),
    Case("179 truncated PNG", truncated_png, skipped="truncated"),
    Case("180 CMYK", cmyk, pixel=RED),
    Case("181 16-bit PNG", sixteen_bits, pixel=(128, 128, 128)),
    Case("182 animated GIF and WebP", animations, pixel=RED, images=GOOD + 2),
    Case("183 grey", grey, pixel=(77, 77, 77)),
    Case("184 palette with alpha", palette, pixel=(255, 255, 255)),
    Case("185 EXIF rotation", rotated, pixel=BLUE),
    Case("186 decompression bomb", bomb, skipped="too many pixels"),
    Case("187 1x1 and 20000x10", extremes, pixel=BLUE, images=GOOD + 3),
    Case("188 no image", no_image, skipped="not an image"),
    Case("189 permission denied", forbidden, skipped="Permission denied"),
    Case("190 symlink loop", loop, skipped="Too many levels of symbolic links"),
    Case("191 name without UTF-8", name_without_utf8, pixel=BLUE),
    Case("193 empty folder", keep(0), refused=r"is empty; put images in it"),
    Case("194 smaller than a batch", keep(3), images=3),
    Case("195 smaller than the processes", keep(1), images=1),
    Case("196 duplicates", duplicates, images=GOOD + 2),
)


@contextmanager
def listening() -> Iterator[list[str]]:
    """Give the lines that zoo logs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())      # type: ignore[method-assign]
    logger = logging.getLogger("zoo")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything: be another user for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextmanager
def place() -> Iterator[Path]:
    """Give a folder with good images in it, in which everybody may write."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")                    # of Pillow, about the files that are bad on purpose
        root = Path(name)
        (root / "photos").mkdir()
        for index in range(GOOD):
            fill = (10 * index, 255 - 10 * index, 128)
            Image.new("RGB", (32, 32), fill).save(root / "photos" / f"{index:02}.png")
        for path in (root, root / "photos"):
            path.chmod(0o777)
        before = os.environ.get("ZOO_HOME")
        os.environ["ZOO_HOME"] = str(root / "home")
        try:
            yield root
        finally:
            del os.environ["ZOO_HOME"]
            if before is not None:
                os.environ["ZOO_HOME"] = before


def expect(holds: bool, what: object) -> None:
    if not holds:
        raise AssertionError(what)


def train(images: ImageSet, out: Path) -> None:
    torch.manual_seed(0)
    run = zoo.train(zoo.create("dcgan", **TINY), images, kimg=0.024, batch=8, out=out, tick_kimg=0.008, sample_kimg=1.0)
    expect(len(run.log) == 3, f"{len(run.log)} ticks")
    for tensor in run.model.state_dict().values():
        expect(bool(tensor.isfinite().all()), "weights that are not finite")
    said = run.settings["data"]
    expect(said["images"] == len(images) and said["skipped"] == len(images.skipped), f"run.json says {said}")


def check(case: Case, root: Path, store: str, *, trained: bool) -> None:
    """Raise AssertionError with what was not as it must be."""
    folder = root / "photos"
    with listening() as lines, nobody() if case.make is forbidden else nullcontext():
        if case.refused:
            refuse(case, folder, STORES[store])
            return
        images = open_images(folder, resolution=16, channels=3, **STORES[store])
        look(case, images)
        if trained:
            train(images, root / store)
    named = [line for line in lines if "bad" in line]
    expect(all(line.isprintable() for line in lines), f"not one line: {lines}")
    expect(len(named) == bool(case.skipped), f"named {len(named)} times: {lines}")
    expect(len(images.skipped) == bool(case.skipped), images.skipped)
    if case.skipped:
        ((name, why),) = images.skipped
        expect(name.startswith("bad") and re.search(case.skipped, why) is not None, (name, why))


def refuse(case: Case, folder: Path, options: dict[str, object]) -> None:
    try:
        open_images(folder, resolution=16, channels=3, **options)
    except ZooError as error:
        expect(re.search(case.refused, str(error)) is not None, error)
    else:
        raise AssertionError("not refused")


def look(case: Case, images: ImageSet) -> None:
    """Look at how many images are left, the bad one's pixels, and the shares of two processes."""
    left = case.images if case.images is not None else GOOD + (case.pixel is not None)
    listed = left + bool(case.skipped) * (not images.in_memory and "loop" not in case.name)
    expect(len(images) == listed, f"{len(images)} images, not {listed}")      # replaced ones have a place too
    if case.pixel is not None:
        middle = images.read([GOOD])[0, :, 10, 8].int()
        expect(int((middle - torch.tensor(case.pixel)).abs().max()) <= 6, f"pixel {middle.tolist()}")
    whole = next(batches(images, batch=8, seed=1, start=3))[0]
    for share in range(2):
        part = next(batches(images, batch=8, seed=1, start=3, share=share, shares=2))[0]
        expect(torch.equal(part, whole[share::2]), f"share {share} sees other images")


def vanish(root: Path, store: str) -> None:
    """192: an image vanishes during the training. It is named once if it was not decoded before."""
    folder = root / "photos"
    images = open_images(folder, resolution=16, channels=3, **STORES[store])
    gone = folder / "05.png"

    def progress(kimg: float, total: float, values: object) -> None:
        gone.unlink(missing_ok=True)

    with listening() as lines:
        torch.manual_seed(0)
        model = zoo.create("dcgan", **TINY)
        zoo.train(model, images, kimg=0.12, batch=8, out=root / store, tick_kimg=0.008, progress=progress)
    expect(not gone.exists(), "it did not vanish")
    named = [line for line in lines if "05.png" in line]
    expect(len(named) == (store == "on demand"), lines)
    if named:
        text = "05.png cannot be read (No such file or directory); another image takes its place."
        expect(named[0].endswith(text), named)


def all_gone(root: Path) -> None:
    """Beyond the list: when every image is gone the training ends with one line."""
    images = open_images(root / "photos", resolution=16, channels=3, **STORES["on demand"])
    for path in (root / "photos").iterdir():
        path.unlink()
    try:
        train(images, root / "run")
    except DataError as error:
        expect(str(error).startswith("no image in"), error)
    else:
        raise AssertionError("went on without images")


def attempt(name: str, steps: list[Callable[[Path], None]]) -> bool:
    try:
        for step in steps:
            with place() as root:
                step(root)
    except (AssertionError, ZooError) as error:
        print(f"{name}: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"{name}: handled", flush=True)
    return True


def steps(case: Case, trained: Sequence[str] = tuple(STORES)) -> list[Callable[[Path], None]]:
    """Return one step a store; a training belongs to those that are named."""

    def one(store: str) -> Callable[[Path], None]:
        def run(root: Path) -> None:
            case.make(root / "photos")
            check(case, root, store, trained=store in trained)

        return run

    return [one(store) for store in STORES]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--short", action="store_true", help="open all, but train on one case in four only")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    stores = tuple(STORES)
    faults = {}
    for number, case in enumerate(CASES):
        few = stores[number % 3 :][: number % 4 == 0]
        faults[case.name] = steps(case, few if given.short else stores)
    faults["192 vanishes"] = [lambda root, store=store: vanish(root, store) for store in STORES] + [all_gone]
    if not attempt("good images alone", steps(Case("good", lambda folder: None))[:1]):
        return 1       # and what a training imports is there before privileges are given up
    chosen = {name: runs for name, runs in sorted(faults.items()) if given.only in name}
    handled = sum(attempt(name, runs) for name, runs in chosen.items())
    print(f"{handled}/{len(chosen)} handled")
    return 0 if handled == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
