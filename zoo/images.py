"""Images for people to look at: tensors in [-1, 1] become a grid in a picture file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

PADDING = 2                                  # white pixels around each image
APART = 10                                   # more of them between two halves of a grid
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Layout:
    """Where the images of a grid stand, row by row, in pixels of the picture."""

    count: int          # images
    columns: int        # images in a row
    width: int          # of an image
    height: int
    zoom: int = 1       # an image's pixel becomes a square of so many
    left: int = 0       # white room left of all images, for what is written there
    top: int = 0        # above them
    below: int = 0      # under each image
    halves: int = 0     # images in a row before a wider gap; 0: no such gap
    padding: int = PADDING

    def corner(self, index: int) -> tuple[int, int]:
        """Return the left and top edge of an image."""
        row, column = divmod(index, self.columns)
        wider = APART if 0 < self.halves <= column else 0
        return (
            self.left + wider + self.padding + column * (self.width * self.zoom + self.padding),
            self.top + self.padding + row * (self.height * self.zoom + self.below + self.padding),
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        right, bottom = self.corner(self.columns * ceil(self.count / self.columns) - 1)
        return (
            right + self.width * self.zoom + self.padding,
            bottom + self.height * self.zoom + self.below + self.padding,
        )


def to_bytes(images: Tensor) -> Tensor:
    """Return images [..., C, H, W] in [-1, 1] as uint8 in 0 to 255; values outside are clamped, NaN becomes black."""
    scaled = images.detach().float().nan_to_num(nan=-1.0).clamp(-1, 1).add(1).mul(127.5)
    return scaled.round().to(torch.uint8).cpu()


def grid(images: Tensor, columns: int | None = None) -> Image:
    """Return one picture of images [N, C, H, W] in [-1, 1] on white, row by row, 2 pixels apart.

    Args:
        images: 1 (grey), 3 (RGB) or 4 (RGBA) channels.
        columns: images in a row; None makes the grid as square as it gets.

    Raises:
        ConfigError: no images, another number of channels, or fewer than one column.
    """
    if images.ndim != 4 or not len(images) or images.shape[1] not in _MODES:
        raise ConfigError(f"Images of shape {list(images.shape)} make no grid: give [N, C, H, W] with C of 1, 3 or 4.")
    if columns is not None and columns < 1:
        raise ConfigError(f"A grid of {columns} columns is not possible: give at least 1, or None for a square one.")
    n, _, height, width = images.shape
    return laid(to_bytes(images), Layout(n, min(n, columns or ceil(sqrt(n))), width, height))


def laid(pixels: Tensor, layout: Layout) -> Image:
    """Return one picture of uint8 images [N, C, H, W] with 1, 3 or 4 channels, on white, where a layout puts them."""
    from PIL import Image

    channels = pixels.shape[1]
    across, down = layout.size
    canvas = torch.full((down, across, channels), 255, dtype=torch.uint8)
    for i, image in enumerate(pixels):
        left, top = layout.corner(i)
        drawn = image.permute(1, 2, 0).repeat_interleave(layout.zoom, 0).repeat_interleave(layout.zoom, 1)
        canvas[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    return Image.frombytes(_MODES[channels], layout.size, canvas.numpy().tobytes())


def font(size: int) -> FreeTypeFont | ImageFont:
    """Return Pillow's own font, which is on every machine; `size` in pixels."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def writable(text: str) -> str:
    """Return a text with a question mark for what that font has no letter for."""
    # It has few letters, and without FreeType only those of Latin-1.
    return text.encode("ascii", "replace").decode()


def check_place(path: str | Path) -> Path:
    """Return the path of a picture to write.

    Raises:
        ConfigError: the suffix names no picture format, or a folder stands there.
    """
    from PIL import Image

    path = Path(path)
    Image.init()
    known = {suffix for suffix, name in Image.EXTENSION.items() if name in Image.SAVE}
    if path.suffix.lower() not in known:
        raise ConfigError(f"{str(path)!r} names no picture format: end it with .png.")
    if os.path.isdir(path):
        raise ConfigError(f"{str(path)!r} is a folder: give a file name that ends with .png.")
    return path


def save_grid(images: Tensor, path: str | Path, columns: int | None = None) -> Path:
    """Write `grid(images, columns)` to a picture file, whose suffix names the format, and return its path.

    Raises:
        ConfigError: as `grid`, or the suffix names no picture format that can hold these channels.
    """
    check_place(path)
    return save(grid(images, columns), path)


def save(picture: Image, path: str | Path) -> Path:
    """Write a picture to a file, whose suffix names the format, and return its path.

    Raises:
        ConfigError: the suffix names no picture format that can hold these channels, or a folder stands there.
    """
    path = check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        picture.save(path)
    except OSError as error:
        if error.errno is None:                   # a format that cannot hold these channels, not a full disk
            raise ConfigError(f"{path.suffix} cannot hold {picture.mode} images: end the name with .png.") from error
        raise
    return path
