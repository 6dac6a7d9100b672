"""Frames that move: GIF and WebP by Pillow, MP4 by PyAV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from zoo.errors import ConfigError
from zoo.images import PADDING, Layout, laid, to_bytes
from zoo.metrics.features import to_rgb
from zoo.pictures.lettering import zoom
from zoo.storage import place

if TYPE_CHECKING:
    from types import ModuleType

QUALITY = 90      # of WebP, of 100
CRF = 18          # of H.264, 0 to 51: about where nobody sees a difference


@dataclass(frozen=True)
class Encoding:
    """A kind of file that moves."""

    encode: Callable[[list[Image.Image], int], bytes]      # RGB frames of one size, frames a second
    fastest: int                                           # frames a second that programs show


def save_animation(frames: Tensor, path: str | Path, *, fps: int = 15) -> Path:
    """Write an animation, which begins again when it ends, and return its path.

    Frames that are equal may be kept as one that lasts longer. An MP4 says nothing of what comes after its end.

    Args:
        frames: [T, C, H, W] in [-1, 1], or [T, n, C, H, W]: n images side by side. Small ones are drawn larger.
        path: ends with .gif, .webp or .mp4.
        fps: frames a second.

    Raises:
        ConfigError: no frames, a path with another ending, a number of frames a second that such a file cannot
            have, or for .mp4 no PyAV.
    """
    path = check_animation(path, fps=fps)
    encoding = ENCODINGS[path.suffix.lower()]
    content = encoding.encode(list(_drawn(frames)), fps)
    path.parent.mkdir(parents=True, exist_ok=True)
    place(content, path)
    return path


def check_animation(path: str | Path, *, fps: int = 15) -> Path:
    """Return the path of an animation to write.

    Raises:
        ConfigError: as `save_animation`, but for the frames.
    """
    path = Path(path)
    if not animated(path):
        raise ConfigError(f"{str(path)!r} names no animation: end it with {', '.join(ENCODINGS)}.")
    if path.is_dir():
        raise ConfigError(f"{str(path)!r} is a folder: give a file name that ends with {path.suffix}.")
    fastest = ENCODINGS[path.suffix.lower()].fastest
    if not isinstance(fps, int) or not 1 <= fps <= fastest:
        raise ConfigError(f"fps={str(fps)[:60]}: a {path.suffix} shows 1 to {fastest} frames a second.")
    if path.suffix.lower() == ".mp4":
        _av()
    return path


def animated(path: str | Path) -> bool:
    """Return whether a file of this name would move."""
    return Path(path).suffix.lower() in ENCODINGS


def _drawn(frames: Tensor) -> Iterator[Image.Image]:
    """Yield each frame as RGB."""
    if frames.ndim not in (4, 5) or not frames.numel() or frames.shape[-3] not in (1, 3, 4):
        raise ConfigError(
            f"Frames of shape {list(frames.shape)} make no animation: give [T, C, H, W] or [T, n, C, H, W] "
            "with C of 1, 3 or 4."
        )
    for frame in frames:
        images = frame if frame.ndim == 4 else frame[None]
        pixels = to_rgb(to_bytes(images))
        n, _, height, width = pixels.shape
        columns, padding = ceil(sqrt(n)), PADDING if n > 1 else 0
        yield laid(pixels, Layout(n, columns, width, height, zoom=zoom(pixels), padding=padding))


def _lasting(frames: int, fps: int, ticks: int) -> list[int]:
    """Return how many ticks, of so many a second, each frame lasts: whole ones that together keep the pace."""
    edges = [round(ticks * frame / fps) for frame in range(frames + 1)]
    return [end - start for start, end in pairwise(edges)]


def _pillow(frames: list[Image.Image], form: str, durations: list[int], **options: Any) -> bytes:
    """Return what Pillow writes; `durations` in milliseconds."""
    file = BytesIO()
    first, *others = frames
    first.save(file, form, save_all=True, append_images=others, duration=durations, loop=0, **options)
    return file.getvalue()


def _gif(frames: list[Image.Image], fps: int) -> bytes:
    return _pillow(frames, "GIF", [10 * ticks for ticks in _lasting(len(frames), fps, 100)])


def _webp(frames: list[Image.Image], fps: int) -> bytes:
    return _pillow(frames, "WEBP", _lasting(len(frames), fps, 1000), quality=QUALITY)


def _mp4(frames: list[Image.Image], fps: int) -> bytes:
    av, file = _av(), BytesIO()
    width, height = (size + size % 2 for size in frames[0].size)      # colours are kept for squares of four pixels
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(CRF)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            even = Image.new("RGB", (width, height), "white")
            even.paste(frame)
            container.mux(stream.encode(av.VideoFrame.from_image(even)))
        container.mux(stream.encode())
    return file.getvalue()


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ConfigError('An .mp4 needs PyAV: pip install "genzoo[video]", or end the name with .gif.') from error
    return av


# Browsers show a GIF's frames of less than two hundredths of a second for ten.
ENCODINGS = {".gif": Encoding(_gif, 50), ".webp": Encoding(_webp, 60), ".mp4": Encoding(_mp4, 60)}
