"""One look at every image of a set: its size and kind, its damage, and what tells copies from each other."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from zoo.data.decode import UPRIGHT, fit, formats, reason
from zoo.data.sources import Pixels, Source
from zoo.doctor.copies import fingerprints, shrink
from zoo.errors import DataError

VIEW = 32                   # pixels of the square, cut as for training, that an image is judged by
BLOCK = 1024                # images looked at before their views are summed up
LARGE = 16 << 20            # pixels: of larger images only one is open at a time, which bounds the memory
BAND = 1 << 20              # pixels hashed at a time
FLAT = 3                    # levels: a picture whose channels vary no more has a single colour
TINT = 8                    # levels between a pixel's channels that still count as grey: JPEG rounds that much
TURNED_OVER = (5, 6, 7, 8)  # EXIF orientations that swap width and height
MOVING = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")  # not JPEG: a second picture in one is a preview or a depth map

COLOURS = {
    "1": "1-bit", "L": "grey", "LA": "grey with alpha", "P": "palette", "PA": "palette with alpha", "RGB": "RGB",
    "RGBA": "RGBA", "RGBX": "RGB", "CMYK": "CMYK", "YCbCr": "YCbCr", "LAB": "Lab", "F": "floating point",
}  # fmt: skip
_one_large = threading.Lock()

Progress = Callable[[str, int, int], None]  # (what is done, images done, images in all)


@dataclass(frozen=True, slots=True)
class Look:
    """What one file is."""

    width: int      # pixels, upright
    height: int
    format: str     # "PNG", ...
    colours: str    # "RGB", "palette", "16-bit grey", ...
    turned: bool    # by its EXIF orientation
    moving: bool    # an animation, or several pages
    alpha: bool     # a pixel is not opaque
    digest: bytes   # of its pixels: equal for exact copies, whatever the file format

    @property
    def side(self) -> int:
        """Pixels of the centre square."""
        return min(self.width, self.height)

    @property
    def aspect(self) -> float:
        """Longer side / shorter side."""
        return max(self.width, self.height) / self.side


@dataclass(frozen=True)
class Survey:
    """All that was seen in one set. Arrays have one row for each of the n images that can be read."""

    name: str
    classes: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]     # (name, reason) of files that cannot be read
    names: tuple[str, ...]
    looks: tuple[Look, ...]
    places: NDArray[np.int64]               # [n] index in the source
    labels: NDArray[np.int64] | None        # [n]
    views: NDArray[np.uint8]                # [n, 16, 16, 3]
    hashes: NDArray[np.uint64]              # [n] perceptual
    grey: NDArray[np.bool_]                 # [n]
    flat: NDArray[np.bool_]                 # [n] a single colour
    tone: NDArray[np.float32]               # [n, 2] mean and standard deviation of brightness, levels

    def __len__(self) -> int:
        return len(self.names)


def survey(source: Source, *, workers: int, progress: Progress | None = None) -> Survey:
    """Look at every image of a set with `workers` threads; a file that fails is named, with the reason."""
    seen: list[tuple[int, Look]] = []
    failed = list(source.refused)
    summaries: list[_Summary] = []
    for indices, found in _blocks(source, workers):
        good = [(index, each) for index, each in zip(indices, found) if not isinstance(each, str)]
        failed += [(source.names[index], each) for index, each in zip(indices, found) if isinstance(each, str)]
        seen += [(index, each[0]) for index, each in good]
        summaries.append(_sum_up(np.array([each[1] for _, each in good], np.uint8).reshape(-1, VIEW, VIEW, 3)))
        if progress:
            progress("examined", indices.stop, len(source.names))
    places = np.array([index for index, _ in seen], dtype=np.int64)
    views, hashes, grey, flat, tone = (np.concatenate(columns) for columns in zip(*summaries))
    return Survey(
        name=source.name,
        classes=source.classes,
        failed=tuple(sorted(failed)),
        names=tuple(source.names[index] for index in places),
        looks=tuple(each for _, each in seen),
        places=places,
        labels=None if source.labels is None else source.labels[places],
        views=views,
        hashes=hashes,
        grey=grey,
        flat=flat,
        tone=tone,
    )


_Summary = tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]


def _blocks(source: Source, workers: int) -> Iterator[tuple[range, list[tuple[Look, Pixels] | str]]]:
    def one(index: int) -> tuple[Look, Pixels] | str:
        try:
            with source.open(index) as file:
                return look(file)
        except DataError:  # the whole source is gone
            raise
        except Exception as error:  # whatever a broken file makes Pillow raise is a finding
            return reason(error)

    n = len(source.names)
    with ThreadPoolExecutor(workers, thread_name_prefix="zoo-doctor") as pool:
        for first in range(0, n, BLOCK):
            indices = range(first, min(first + BLOCK, n))
            source.expect(indices)
            yield indices, list(pool.map(one, indices))


def look(file: IO[bytes]) -> tuple[Look, Pixels]:
    """Return what one image file is and how training would see it, [VIEW, VIEW, 3]. Raises what Pillow raises."""
    with Image.open(file, formats=formats()) as image, _room(image):
        deep = image.format in ("PNG", "TIFF", "PPM") and any("16" in str(tile[3]) for tile in image.tile)
        image.load()
        kind = COLOURS.get(image.mode, "grey" if image.mode.startswith("I") else image.mode)
        orientation = _orientation(image)
        digest, alpha = _content(image, orientation)
        width, height = image.size[::-1] if orientation in TURNED_OVER else image.size
        found = Look(
            width=width,
            height=height,
            format=str(image.format),
            colours=f"16-bit {kind}" if deep or image.mode.startswith("I") else kind,
            turned=orientation in UPRIGHT,
            moving=image.format in MOVING and _moves(image),
            alpha=alpha,
            digest=digest,
        )
        return found, fit(image, resolution=VIEW, channels=3)


def _room(image: Image.Image) -> AbstractContextManager[object]:
    return _one_large if image.width * image.height > LARGE else nullcontext()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a torn EXIF block says nothing about the pixels
        return 1


def _moves(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # damaged behind the first frame, which is all that is read
        return False


def _content(image: Image.Image, orientation: int) -> tuple[bytes, bool]:
    """Return a digest of the pixels, and whether one of them is not opaque.

    The pixels are taken as 8-bit RGB and alpha, or as they are where they have more bits.
    """
    deep = image.mode[0] in "IF"
    clear = image.has_transparency_data and not deep
    colour, alpha = hashlib.sha256(f"{image.size} {orientation} {deep}".encode()), hashlib.sha256()
    transparent = False
    for part in _bands(image):
        if clear:
            part = part.convert("RGBA")
            mask = part.getchannel("A")
            transparent = transparent or mask.getextrema() != (255, 255)
            alpha.update(mask.tobytes())
        colour.update((part if deep or part.mode == "RGB" else part.convert("RGB")).tobytes())
    if transparent:
        colour.update(alpha.digest())
    return colour.digest()[:16], transparent


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    """Cut a large image into rows of about BAND pixels: all of it in another mode would double the memory."""
    rows = max(1, BAND // image.width)
    if image.height <= rows:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(image.height, top + rows)))


def _sum_up(views: NDArray[np.uint8]) -> _Summary:
    """Reduce views [m, VIEW, VIEW, 3] to the rows of a survey."""
    small = shrink(views)
    channels = views.max(axis=(1, 2), initial=0).astype(int) - views.min(axis=(1, 2), initial=255)
    tint = (views.max(axis=3, initial=0) - views.min(axis=3, initial=255)).max(axis=(1, 2), initial=0)
    brightness = views.mean(axis=3, dtype=np.float32)
    tone = np.stack([brightness.mean(axis=(1, 2)), brightness.std(axis=(1, 2))], axis=1)
    return small, fingerprints(brightness), tint <= TINT, channels.max(axis=1, initial=0) <= FLAT, tone
