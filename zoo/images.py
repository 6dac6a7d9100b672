"""Images for people to look at: tensors in [-1, 1] become a grid in a picture file."""

from __future__ import annotations

import os
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zoo.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

PADDING = 2                                  # white pixels around each image
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


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
    from PIL import Image

    if images.ndim != 4 or not len(images) or images.shape[1] not in _MODES:
        raise ConfigError(f"Images of shape {list(images.shape)} make no grid: give [N, C, H, W] with C of 1, 3 or 4.")
    if columns is not None and columns < 1:
        raise ConfigError(f"A grid of {columns} columns is not possible: give at least 1, or None for a square one.")
    n, channels, height, width = images.shape
    across = min(n, columns or ceil(sqrt(n)))
    down = ceil(n / across)
    canvas = torch.full(
        (down * (height + PADDING) + PADDING, across * (width + PADDING) + PADDING, channels), 255, dtype=torch.uint8
    )
    for i, image in enumerate(to_bytes(images)):
        top, left = (PADDING + place * (size + PADDING) for place, size in zip(divmod(i, across), (height, width)))
        canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)
    shape = (canvas.shape[1], canvas.shape[0])
    return Image.frombytes(_MODES[channels], shape, canvas.numpy().tobytes())


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
    path = check_place(path)
    picture = grid(images, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        picture.save(path)
    except OSError as error:
        if error.errno is None:                   # a format that cannot hold these channels, not a full disk
            raise ConfigError(f"{path.suffix} cannot hold {picture.mode} images: end the name with .png.") from error
        raise
    return path
