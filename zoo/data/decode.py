"""One image file of any kind -> one square uint8 array of the size and channels that a model takes."""

from __future__ import annotations

from functools import cache
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError, features

DECODER = 1              # version of what becomes of an image: images decoded by another one are not used again
EXTENSIONS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")

UPRIGHT = {              # EXIF orientation -> what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@cache
def formats() -> tuple[str, ...]:
    """Return the Pillow formats that are read.

    A list, because Pillow guesses from the content: a renamed EPS file would otherwise start Ghostscript.
    """
    known = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
    return (*known, "AVIF") if features.check("avif") else known


def decode(file: IO[bytes], *, resolution: int, channels: int) -> NDArray[np.uint8]:
    """Read one image (the first frame of an animation) -> [resolution, resolution, channels] uint8.

    Raises what Pillow raises: the caller names the file.
    """
    with Image.open(file, formats=formats()) as opened:
        return fit(opened, resolution=resolution, channels=channels)


def side(file: IO[bytes]) -> int:
    """Return the pixels of an image's centre square, without decoding it; raises what Pillow raises."""
    with Image.open(file, formats=formats()) as opened:
        return min(opened.size)


def fit(image: Image.Image, *, resolution: int, channels: int) -> NDArray[np.uint8]:
    """Turn upright, cut the centre square, bring to grey, RGB or RGBA, resize by Lanczos.

    Alpha is laid over white unless `channels` is 4; an image without alpha is opaque (255). 16-bit images are scaled
    to 8 bits, floating-point ones are taken as [0, 1], or [0, 255] when they exceed 1. Colour profiles are ignored.
    """
    image.load()
    image = _upright(image)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = _recolour(image.crop((left, top, left + side, top + side)), channels)
    if image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.array(image, dtype=np.uint8).reshape(resolution, resolution, channels)


def _upright(image: Image.Image) -> Image.Image:
    # Pillow's own exif_transpose also writes the block anew, and fails on a damaged tag that has nothing to do with it.
    try:
        turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a torn EXIF block says nothing about the pixels, which have been read already
        turn = None
    return image if turn is None else image.transpose(turn)


def _recolour(image: Image.Image, channels: int) -> Image.Image:
    image = _eight_bits(image)
    if image.has_transparency_data or channels == 4:
        image = image.convert("RGBA")
        if channels == 4:
            return image
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert("RGB").convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
        scale = 255.0 if values.max() <= 1.0 else 1.0
    elif image.mode.startswith("I"):                   # "I", "I;16", "I;16B": Pillow keeps 16-bit grey in all of them
        values, scale = np.asarray(image).astype(np.float32), 255.0 / 65535.0
    else:
        return image
    return Image.fromarray((values * scale).round().clip(0, 255).astype(np.uint8))


def reason(error: Exception) -> str:
    """Say in one line why an image could not be read."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of a kind that is not read"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
