"""A grid of images with words: what each row, column and image is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

from PIL import ImageDraw
from torch import Tensor

from zoo.images import Layout, font, laid, to_bytes, writable
from zoo.metrics.features import to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

SEEN = 80                     # pixels of a side that an eye needs: smaller images are drawn larger
LETTERS, SMALL = 13, 11       # pixels: sizes of the font
LINE, UNDER = 20, 17          # height of a line of either
MARGIN = 6                    # between words and images
LONGEST = 180                 # pixels of a row's name
INK = (30, 30, 30)


def zoom(images: Tensor) -> int:
    """Return how many times larger images [..., H, W] are drawn, so that a person sees something."""
    return max(1, ceil(SEEN / min(images.shape[-2:])))


def lettered(
    images: Tensor,
    columns: int,
    *,
    rows: Sequence[str] = (),
    heads: Mapping[int, str] | None = None,
    captions: Sequence[str] = (),
    halves: int = 0,
) -> Image:
    """Return one picture of images [N, C, H, W], small ones larger by a whole factor, RGBA ones on white.

    Args:
        images: float in [-1, 1], or uint8.
        columns: images in a row.
        rows: what stands left of each row.
        heads: column -> what stands above it, up to the next column that has a head.
        captions: what stands under each image.
        halves: images in a row before a wider gap; 0: no such gap.
    """
    pixels = to_rgb(images if not images.is_floating_point() else to_bytes(images))
    heads = heads or {}
    names = [_cut(name, LONGEST, LETTERS) for name in rows]
    layout = Layout(
        count=len(pixels),
        columns=columns,
        width=pixels.shape[3],
        height=pixels.shape[2],
        zoom=zoom(pixels),
        left=max((ceil(_length(name, LETTERS)) for name in names), default=-MARGIN - 2) + MARGIN + 2,
        top=LINE if heads else 0,
        below=UNDER if captions else 0,
        halves=halves,
    )
    picture = laid(pixels, layout)
    pen = ImageDraw.Draw(picture)
    side = layout.height * layout.zoom
    for row, name in enumerate(names):
        top = layout.corner(row * columns)[1]
        pen.text((2, top + (side - LETTERS) // 2 - 1), name, fill=INK, font=font(LETTERS))
    for column, end in pairwise([*sorted(heads), columns]):
        left = layout.corner(column)[0]
        room = (layout.size[0] if end == columns else layout.corner(end)[0]) - left - 2
        pen.text((left, 3), _cut(heads[column], room, LETTERS), fill=INK, font=font(LETTERS))
    for index, caption in enumerate(captions):
        left, top = layout.corner(index)
        cut = _cut(caption, layout.width * layout.zoom, SMALL)
        pen.text((left, top + side), cut, fill=INK, font=font(SMALL))
    return picture


def _cut(text: str, room: int, size: int) -> str:
    """Return as much of a text as fits into so many pixels."""
    text = writable(text)
    kept = text
    while kept and _length(kept if kept == text else f"{kept}..", size) > room:
        kept = kept[:-1]
    return text if kept == text else f"{kept.rstrip()}.." if kept else ""


def _length(text: str, size: int) -> float:
    return font(size).getlength(text)
