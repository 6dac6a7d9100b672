"""The bundled data set: Noto emoji as 32x32 tiles of one sheet, by category."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.decode import fit
from zoo.data.sources import Pixels
from zoo.errors import DataError, suggest


@cache
def index() -> tuple[int, int, tuple[tuple[str, str], ...]]:
    """Return the tile's side, the sheet's columns and (name, category) of each tile."""
    found = json.loads((files("zoo.data") / "emoji" / "index.json").read_text(encoding="utf-8"))
    return found["tile"], found["columns"], tuple((name, category) for name, category in found["tiles"])


@cache
def tiles() -> NDArray[np.uint8]:
    """Return every tile [n, 32, 32, 3]."""
    side, columns, named = index()
    with (files("zoo.data") / "emoji" / "sheet.png").open("rb") as file, Image.open(file) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    rows = pixels.shape[0] // side
    grid = pixels.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    return np.ascontiguousarray(grid[: len(named)])


def categories() -> tuple[str, ...]:
    """Return the categories, sorted."""
    return tuple(sorted({category for _, category in index()[2]}))


class Emoji:
    """The emoji of some categories. Labels are categories when there are at least two."""

    refused: tuple[tuple[str, str], ...] = ()
    groups: NDArray[np.int64] | None = None
    encoded = 0                                  # already decoded, once for all

    def __init__(self, spec: str):
        chosen = choose(spec.partition(":")[2]) if ":" in spec else categories()
        named = index()[2]
        self.name = spec
        self._tiles = [place for place, (_, category) in enumerate(named) if category in chosen]
        self.names = tuple(named[place][0] for place in self._tiles)
        self.classes: tuple[str, ...] = chosen if len(chosen) > 1 else ()
        self.labels = None
        if self.classes:
            self.labels = np.array([chosen.index(named[place][1]) for place in self._tiles], dtype=np.int64)

    def image(self, index: int, *, resolution: int, channels: int) -> Pixels:
        tile = Image.fromarray(tiles()[self._tiles[index]])
        return fit(tile, resolution=resolution, channels=channels)

    def open(self, index: int) -> IO[bytes]:
        file = io.BytesIO()
        Image.fromarray(tiles()[self._tiles[index]]).save(file, "png")
        file.seek(0)
        return file

    def expect(self, indices: Sequence[int] | NDArray[np.int64]) -> None:
        """Hear which images will be wanted soon: they are in memory."""

    def fingerprint(self) -> str:
        digest = hashlib.sha256("\0".join(self.names).encode())
        digest.update(tiles()[self._tiles].tobytes())
        return digest.hexdigest()

    def stamp(self) -> str:
        return self.fingerprint()


def choose(selection: str) -> tuple[str, ...]:
    """`a,b` -> those categories; `-a,b` or `-a,-b` -> all but those. Sorted. Raises DataError for an unknown one."""
    given = [part.strip() for part in selection.split(",")]
    exclude = given[0].startswith("-")
    wanted = {part.removeprefix("-") if exclude else part for part in given}
    known = categories()
    for part in sorted(wanted):
        if part not in known:
            raise DataError(f"emoji has no category {part!r}.{suggest(part, list(known))} It has: {', '.join(known)}.")
    chosen = tuple(category for category in known if (category in wanted) != exclude)
    if not chosen:
        raise DataError(f"'emoji:{selection}' leaves no category out of: {', '.join(known)}.")
    return chosen
