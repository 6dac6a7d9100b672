"""`hf:OWNER/DATASET`: an image data set of the Hugging Face Hub, through the optional `datasets` package."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.decode import decode
from zoo.data.sources import Pixels
from zoo.errors import DataError


class HubDataset:
    """The `train` split (or the first one), its first image column and its first class-label column."""

    refused: tuple[tuple[str, str], ...] = ()
    groups: NDArray[np.int64] | None = None

    def __init__(self, spec: str):
        rows, undecoded = _rows(spec.removeprefix("hf:"))
        kinds = {column: type(kind).__name__ for column, kind in rows.features.items()}
        image = next((column for column, kind in kinds.items() if kind == "Image"), None)
        if image is None:
            raise DataError(f"{spec} has no image column; its columns are: {', '.join(kinds) or 'none'}.")
        if not len(rows):
            raise DataError(f"{spec} is empty; choose a data set with images.")
        label = next((column for column, kind in kinds.items() if kind == "ClassLabel"), None)
        self.name = spec
        self.names = tuple(f"row {index}" for index in range(len(rows)))
        self.classes: tuple[str, ...] = ()
        self.labels = None
        if label:
            labels = np.array(rows[label][:], dtype=np.float64)          # a missing label arrives as NaN or -1
            if (labels >= 0).all():
                self.classes, self.labels = tuple(rows.features[label].names), labels.astype(np.int64)
        self._rows, self._column = rows.select_columns([image]).cast_column(image, undecoded), image
        self.encoded = int(rows.data.nbytes)
        self._digest = f"{spec}\0{rows._fingerprint}"

    def image(self, index: int, *, resolution: int, channels: int) -> Pixels:
        with self.open(index) as file:
            return decode(file, resolution=resolution, channels=channels)

    def open(self, index: int) -> IO[bytes]:
        stored = self._rows[index][self._column]             # {"bytes": ..., "path": ...}: decoded as every other file
        return io.BytesIO(stored["bytes"]) if stored["bytes"] is not None else open(stored["path"], "rb")

    def expect(self, indices: Sequence[int] | NDArray[np.int64]) -> None:
        """Hear which images will be wanted soon: they are on this machine's disk."""

    def fingerprint(self) -> str:
        return hashlib.sha256(self._digest.encode()).hexdigest()

    def stamp(self) -> str:
        return self.fingerprint()


def _rows(repository: str) -> tuple[Any, Any]:
    """Return the rows and the column type that leaves images encoded."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"hf:{repository} needs the datasets package: pip install 'genzoo[data]'") from error
    try:
        found = datasets.load_dataset(repository)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"the Hub data set {repository!r} cannot be loaded: {lines[0]}") from error
    split = "train" if "train" in found else next(iter(found))
    return found[split], datasets.Image(decode=False)
