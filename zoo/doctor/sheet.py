"""A contact sheet: what training would see, and what is worth a look, with captions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from zoo.data.decode import reason
from zoo.data.sources import Source
from zoo.doctor.advice import Advice
from zoo.doctor.look import Survey
from zoo.doctor.repeats import Repeats
from zoo.doctor.words import counted
from zoo.errors import ConfigError
from zoo.images import font, writable
from zoo.noise import key

COLUMNS = 10    # even: the two of a pair stand in one row
TILE = 96       # pixels
GAP, CAPTION, TITLE = 8, 28, 30
SAMPLE, PAIRS, SMALLEST = 50, 15, 10
LETTERS = 16    # in a line of a caption
INK, PALE = (30, 30, 30), (235, 235, 235)


@dataclass(frozen=True)
class Tile:
    """One image of the sheet."""

    index: int      # in the survey
    caption: str    # two lines


@dataclass(frozen=True)
class Section:
    """Some rows of tiles under a title; `paired`: the two of each pair belong together."""

    title: str
    tiles: tuple[Tile, ...]
    paired: bool = False

    @property
    def height(self) -> int:
        return TITLE + -(-len(self.tiles) // COLUMNS) * (TILE + CAPTION + GAP)


def draw(source: Source, seen: Survey, same: Repeats, settings: Iterable[Advice], path: Path, *, seed: int) -> None:
    """Write the sheet of a set to a picture file.

    Raises:
        ConfigError: the file cannot be written.
    """
    value = {each.setting: each.value for each in settings}
    size, channels = int(value["resolution"]), int(value["channels"])
    sections = [section for section in _sections(seen, same, size, seed) if section.tiles]
    canvas = Image.new("RGB", (COLUMNS * (TILE + GAP) + GAP, sum(each.height for each in sections) + GAP), "white")
    pen, small = ImageDraw.Draw(canvas), font(11)
    top = GAP
    for section in sections:
        pen.text((GAP, top + 6), writable(section.title), fill=INK, font=font(15))
        for place, tile in enumerate(section.tiles):
            row, column = divmod(place, COLUMNS)
            corner = GAP + column * (TILE + GAP), top + TITLE + row * (TILE + CAPTION + GAP)
            canvas.paste(_picture(source, int(seen.places[tile.index]), size, channels), corner)
            pen.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + TILE, corner[1] + TILE), outline=PALE)
            pen.text((corner[0], corner[1] + TILE + 2), writable(tile.caption), fill=INK, font=small, spacing=1)
            if section.paired and column % 2:
                pen.line((corner[0] - GAP, corner[1] + TILE // 2, corner[0], corner[1] + TILE // 2), fill=INK, width=3)
        top += section.height
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error}): name another file that ends with .png.") from error


def _sections(seen: Survey, same: Repeats, size: int, seed: int) -> Iterator[Section]:
    n = len(seen)
    order = np.random.default_rng(key("sheet", seed)).permutation(n)
    sample = tuple(_tile(seen, int(index)) for index in sorted(order[:SAMPLE]))
    yield Section(f"{len(sample)} of {counted(n, 'image')} as training sees them at {size}x{size}", sample)
    for near, title in ((True, "nearly the same: are these copies?"), (False, "exact copies")):
        pairs = same.pairs(near=near)
        tiles = tuple(_tile(seen, index) for pair in pairs[:PAIRS] for index in pair)
        yield Section(f"{title} ({min(PAIRS, len(pairs))} of {counted(len(pairs), 'pair')})", tiles, paired=True)
    sides = np.array([each.side for each in seen.looks])
    small = np.argsort(sides, kind="stable")[: SMALLEST if sides.min() < sides.max() else 0]
    yield Section("the smallest", tuple(_tile(seen, int(index), _size(seen, int(index))) for index in small))
    yield Section("the odd ones", tuple(_odd(seen)))


def _odd(seen: Survey) -> Iterator[Tile]:
    """Yield the images at the ends of brightness, contrast and shape, each once."""
    aspect = np.array([each.aspect for each in seen.looks], dtype=np.float32)
    met: set[int] = set()
    for what, values in (
        ("darkest", seen.tone[:, 0]),
        ("brightest", -seen.tone[:, 0]),
        ("plainest", seen.tone[:, 1]),
        ("longest", np.where(aspect > 1, -aspect, np.inf)),
    ):
        for index in np.argsort(values, kind="stable")[:3].tolist():
            if index not in met and np.isfinite(values[index]):
                met.add(index)
                shape = f"longest {aspect[index]:.1f}:1" if what == "longest" else what
                yield _tile(seen, index, shape)


def _tile(seen: Survey, index: int, second: str = "") -> Tile:
    name = seen.names[index]
    if not second and seen.labels is not None:
        second = seen.classes[seen.labels[index]]
    first = name.rpartition("/")[2]
    return Tile(index, f"{_cut(first)}\n{_cut(second or _size(seen, index))}")


def _size(seen: Survey, index: int) -> str:
    return f"{seen.looks[index].width}x{seen.looks[index].height}"


def _cut(text: str) -> str:
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 8]}..{text[-6:]}"


def _picture(source: Source, place: int, size: int, channels: int) -> Image.Image:
    try:
        pixels = source.image(place, resolution=size, channels=channels)
    except Exception as error:  # it could be read a moment ago; the sheet shows what there is now
        lost = Image.new("RGB", (TILE, TILE), PALE)
        ImageDraw.Draw(lost).text((4, 4), writable(_cut(reason(error))), fill=INK, font=font(11))
        return lost
    picture = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).convert("RGB")
    filtering = Image.Resampling.NEAREST if size < TILE else Image.Resampling.LANCZOS
    return picture.resize((TILE, TILE), filtering)
