"""Pictures as text within a page: read with care, made smaller where they are large, and small as files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

WIDE, NARROW = 1400, 640          # most pixels of a side: of what stands alone, and of what stands beside others
BYTES = 400_000                   # most of one picture: a PNG up to here, else a JPEG, of less quality as needed
QUALITIES = (90, 80, 65, 50, 30)
FILE, PIXELS = 256 << 20, 80_000_000      # a larger file is not read, a larger picture not decoded
GRIDS = 6                         # of a training: the first, the last and a few between
SMALL = 420                       # narrower ones are shown larger, with the pixels that they have


@dataclass(frozen=True)
class Picture:
    """One picture of a page."""

    source: str      # a data: address
    width: int
    height: int
    caption: str
    pixels: bool     # whether it is so small that its pixels are shown as such


def embedded(image: Image.Image, caption: str, *, most: int = WIDE) -> Picture:
    """Return a picture as text, at most `most` pixels wide and high."""
    plain = _plain(image)
    if max(plain.size) > most:
        share = most / max(plain.size)
        size = (max(1, round(plain.width * share)), max(1, round(plain.height * share)))
        plain = plain.resize(size, Image.Resampling.LANCZOS)
    kind, content = "png", _written(plain, "PNG", optimize=True)
    for quality in QUALITIES:
        if len(content) <= BYTES:
            break
        kind, content = "jpeg", _written(plain, "JPEG", quality=quality)
    address = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(address, plain.width, plain.height, caption, max(plain.size) < SMALL)


def grids(directory: Path) -> tuple[list[Picture], list[str]]:
    """Return the sample grids of a run over time, and a line for each that cannot be read."""
    found: dict[float, Path] = {}
    for path in sorted(directory.glob("*.png")) if directory.is_dir() else []:
        digits = path.stem.replace(".", "", 1)
        if digits.isascii() and digits.isdigit() and len(digits) < 20:      # as the training names them
            found[float(path.stem)] = path
    pictures, lost = [], []
    for kimg in spread(sorted(found), GRIDS):
        try:
            pictures.append(embedded(opened(found[kimg]), f"{kimg:g} kimg", most=NARROW))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            lost.append(f"{found[kimg].name} cannot be shown ({str(error)[:100] or type(error).__name__}).")
    return pictures, lost


def spread(items: Sequence[float], most: int) -> list[float]:
    """Return the first, the last and others evenly between, at most so many in all."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def opened(path: Path) -> Image.Image:
    """Return the picture of a PNG file, decoded.

    Raises:
        OSError, ValueError, SyntaxError: it is none, or too large.
    """
    if not path.is_file() or path.stat().st_size > FILE:      # a pipe or a device would never end
        raise ValueError("no regular file, or too large")
    with Image.open(path, formats=("PNG",)) as image:
        if image.width * image.height > PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are too many")
        image.load()
        return image.copy()


def _plain(image: Image.Image) -> Image.Image:
    """Return a picture as grey or RGB, on white where it is transparent."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        whole = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    return image.convert("RGB")


def _written(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
