"""`hf:OWNER/DATASET`: an image data set of the Hugging Face Hub, through the optional `datasets` package."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.decode import decode
from zoo.data.sources import Pixels
from zoo.errors import DataError

GRAMMAR = re.compile(r"(?P<repository>[^@:]+)(?:@(?P<revision>[^@:]+))?(?::(?P<part>.+))?")
FORM = "OWNER/DATASET[@REVISION][:[CONFIGURATION/]SPLIT]"


@dataclass(frozen=True)
class Address:
    """Which part of which data set, at which revision; None: what `datasets` takes by itself."""

    spec: str
    repository: str
    revision: str | None = None
    configuration: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, spec: str) -> Address:
        """Read ``hf:OWNER/DATASET[@REVISION][:[CONFIGURATION/]SPLIT]``, or the same behind ``hf-stream:``.

        Raises:
            DataError: it is not of that form.
        """
        scheme, _, rest = spec.partition(":")
        found = GRAMMAR.fullmatch(rest)
        if found is None:
            raise DataError(f"{spec!r} names no data set; write {scheme}:{FORM}, such as {scheme}:acme/cats:train.")
        configuration, slash, split = (found["part"] or "").rpartition("/")
        if slash and not configuration:
            raise DataError(f"{spec!r} names no configuration before '/'; write {scheme}:{FORM}.")
        return cls(spec, found["repository"], found["revision"], configuration or None, split or None)

    def asked(self, function: Callable[..., Any], **options: Any) -> Any:
        """Return what a function of `datasets` says about this address; its errors become one line."""
        try:
            return function(self.repository, self.configuration, revision=self.revision, **options)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise DataError(f"the Hub data set {self.spec!r} cannot be loaded: {lines[0]}") from error


def library(spec: str) -> Any:
    """Return the `datasets` package. Raises DataError where it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{spec} needs the datasets package: pip install 'genzoo[data]'") from error
    return datasets


def columns(spec: str, features: dict[str, Any]) -> tuple[str, str | None]:
    """Return the names of the first image column and of the first class-label column, if there is one.

    Raises:
        DataError: there is no image column.
    """
    kinds = {column: type(kind).__name__ for column, kind in features.items()}
    image = next((column for column, kind in kinds.items() if kind == "Image"), None)
    if image is None:
        raise DataError(f"{spec} has no image column; its columns are: {', '.join(kinds) or 'none'}.")
    return image, next((column for column, kind in kinds.items() if kind == "ClassLabel"), None)


class HubDataset:
    """One split (`train`, or the first one), its first image column and its first class-label column."""

    refused: tuple[tuple[str, str], ...] = ()
    groups: NDArray[np.int64] | None = None

    def __init__(self, spec: str):
        address, datasets = Address.parse(spec), library(spec)
        rows = address.asked(datasets.load_dataset, split=address.split)
        if address.split is None:
            rows = rows["train" if "train" in rows else next(iter(rows))]
        image, label = columns(spec, rows.features)
        if not len(rows):
            raise DataError(f"{spec} is empty; choose a data set with images.")
        self.name = spec
        self.names = tuple(f"row {index}" for index in range(len(rows)))
        self.classes: tuple[str, ...] = ()
        self.labels = None
        if label:
            labels = np.array(rows[label][:], dtype=np.float64)          # a missing label arrives as NaN or -1
            if (labels >= 0).all():
                self.classes, self.labels = tuple(rows.features[label].names), labels.astype(np.int64)
        undecoded = datasets.Image(decode=False)
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
