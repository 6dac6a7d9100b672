"""Images in, tensors out: a folder, a zip of one, tar shards, the bundled `emoji`, or a Hub data set."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from zoo.data import decode
from zoo.data.batches import batches
from zoo.data.folders import open_folder
from zoo.data.images import ImageSet, normalise
from zoo.data.reader import Progress
from zoo.data.shards import PACKED, matching, open_shards
from zoo.data.sources import Source, printable
from zoo.data.zips import open_zip
from zoo.errors import ConfigError, DataError, suggest

__all__ = ["ImageSet", "batches", "normalise", "open_images", "open_source", "side"]

MEMORY = 1 << 30         # bytes: sets whose pixels take no more leave out what cannot be read
CACHE = 32 << 20         # bytes as stored, from which decoded images are kept on disk: about a second of decoding
POSSIBLE = "Data is an image folder, a zip of one, tar shards, emoji[:CATEGORY], hf:OWNER/DATASET or hf-stream:..."


def open_images(
    spec: str | Path | ImageSet,
    *,
    resolution: int,
    channels: int,           # 1: grey, 3: RGB, 4: RGBA
    workers: int = 0,        # decoding threads; 0: decode in the caller's thread
    memory: int = MEMORY,    # largest decoded size, in bytes, that is kept in memory
    cache: int | None = CACHE,               # smallest stored size whose decoded images are kept on disk; None: never
    progress: Progress | None = None,        # called with (images done, images in all) while all are decoded
) -> ImageSet:
    """Open a set of images, each cut to its centre square and resized.

    `spec` is an image folder (two or more subfolders: their names become classes), a zip of one, a tar or a pattern of
    several such as `shards/{00..99}.tar`, `emoji`, `emoji:CATEGORY[,CATEGORY]`, `emoji:-CATEGORY` (all but that),
    `hf:OWNER/DATASET`, `hf-stream:OWNER/DATASET`, or an open set, which is returned as it is. Files that cannot be read
    are skipped and named in one warning of the logger `zoo`. Raises DataError, and ConfigError for impossible settings.
    """
    if isinstance(spec, ImageSet):
        if (spec.resolution, spec.channels) != (resolution, channels):
            raise DataError(
                f"{spec.name} is open at {spec.resolution}x{spec.resolution} with {spec.channels} channels, but "
                f"{resolution}x{resolution} with {channels} is needed; pass its folder or name instead."
            )
        return spec
    if channels not in (1, 3, 4) or resolution < 1 or workers < 0:
        given = f"resolution {resolution}, channels {channels}, workers {workers}"
        raise ConfigError(f"images cannot be opened with {given}; channels are 1, 3 or 4, workers 0 or more.")
    return ImageSet(
        open_source(spec),
        resolution=resolution,
        channels=channels,
        workers=workers,
        memory=memory,
        cache=cache,
        progress=progress,
    )


def side(spec: str | Path) -> int:
    """Return the pixels of the centre square of the first image that can be read. Raises DataError."""
    source = open_source(spec)
    for index in range(len(source.names)):
        with suppress(Exception), source.open(index) as file:      # whatever a decoder raises
            return decode.side(file)
    raise DataError(f"{source.name}: none of its {len(source.names)} images can be read.")


def open_source(spec: str | Path) -> Source:
    """List a set of images without reading any. Raises DataError."""
    if not isinstance(spec, str | Path):
        raise DataError(f"{type(spec).__name__} {str(spec)[:80]!r} is no data. {POSSIBLE}")
    if spec == "":
        raise DataError(f"no data given. {POSSIBLE}")
    named = NAMED.get(str(spec).partition(":")[0])
    return named(str(spec)) if named and isinstance(spec, str) else _on_disk(Path(spec))


def _hub(spec: str) -> Source:
    from zoo.data.hub import HubDataset

    return HubDataset(spec)


def _stream(spec: str) -> Source:
    from zoo.data.stream import HubStream

    return HubStream(spec)


def _emoji(spec: str) -> Source:
    from zoo.data.emoji import Emoji

    return Emoji(spec)


NAMED: dict[str, Callable[[str], Source]] = {"hf": _hub, "hf-stream": _stream, "emoji": _emoji}


def _on_disk(path: Path) -> Source:
    try:
        path = path.expanduser()
        if path.is_dir():
            return open_folder(path)
        if path.is_file():
            return open_shards([path], printable(str(path)), path.parent) if _tar(path) else open_zip(path)
        if "{" in path.name:
            shards = matching(str(path))
            return open_shards(shards, printable(str(path)), Path(os.path.commonpath([each.parent for each in shards])))
    except (OSError, ValueError, RuntimeError) as error:      # the last: no home of that user
        raise DataError(f"{printable(str(path))} cannot be opened: {error}") from error
    raise DataError(_missing(path))


def _tar(path: Path) -> bool:
    return path.name.lower().endswith((".tar", *PACKED))


def _missing(path: Path) -> str:
    try:
        beside = os.listdir(path.parent)
    except (OSError, ValueError):
        beside = []
    near = suggest(path.name, ["emoji", *beside])
    return f"no folder, zip or tar {printable(str(path))!r}.{near} {POSSIBLE}"
