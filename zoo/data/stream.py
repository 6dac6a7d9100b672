"""`hf-stream:OWNER/DATASET`: rows of Parquet files fetched while they are wanted, for sets that outgrow the disk.

Only the footers of the files are read in advance. They say how many rows each row group has, so any row is found
without those before it, and a training goes on exactly where it stopped at the cost of the groups then in use.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from zoo.data import notes
from zoo.data.decode import decode
from zoo.data.hub import Address, columns, library
from zoo.data.order import LANES
from zoo.data.sources import Pixels
from zoo.errors import DataError

log = logging.getLogger("zoo")
KEPT = 2 * LANES + 1              # row groups in memory: those in use, and those that come next
FETCHING = 4                      # row groups fetched at a time
LOOKING = 16                      # files whose footers are read at a time
PAUSES = (1.0, 4.0, 16.0, 64.0)   # seconds before a fetch that failed is tried again


class Footers(BaseModel):
    """What a set's Parquet files hold."""

    model_config = ConfigDict(strict=True, extra="forbid")

    rows: list[list[int]]                    # of each file, of each of its row groups
    labels: list[int] | None                 # of each row; None where there are none, or one is missing


class RowNames(Sequence[str]):
    """`row 0`, `row 1`, ...: a name for each row without a list of them all."""

    def __init__(self, n: int):
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: Any) -> Any:
        return f"row {range(self._n)[index]}"


class HubStream:
    """One split (`train`, or the first one), its first image column and its first class-label column."""

    refused: tuple[tuple[str, str], ...] = ()
    groups: NDArray[np.int64] | None

    def __init__(self, spec: str):
        self.name, address, datasets = spec, Address.parse(spec), library(spec)
        builder = address.asked(datasets.load_dataset_builder)
        self._urls = _urls(address, builder.config.data_files or {})
        schema = self._opened(self._urls[0], lambda file: _parquet(file).schema_arrow)
        features = builder.info.features or datasets.Features.from_arrow_schema(schema)
        self._column, label = columns(spec, features)
        sizes = self._each(_identity)
        footers = notes.remembered(Footers, ("parquet", json.dumps(sizes), label or ""), lambda: self._look(label))
        self.groups = self._sizes = np.array([rows for file in footers.rows for rows in file], dtype=np.int64)
        if not self._sizes.sum():
            raise DataError(f"{spec} is empty; choose a data set with images.")
        self._ends = np.cumsum(self._sizes)
        self._where = [(file, number) for file, rows in enumerate(footers.rows) for number in range(len(rows))]
        self.names = RowNames(int(self._ends[-1]))
        self.classes: tuple[str, ...] = tuple(features[label].names) if label and footers.labels else ()
        self.labels = np.array(footers.labels, dtype=np.int64) if self.classes else None
        self.encoded = sum(size for _, size, _ in sizes)
        self._digest = json.dumps([[name, size] for name, size, _ in sizes] + footers.rows + [self._column, label])
        self._footer = lru_cache(maxsize=1024)(self._read_footer)
        self._loaded: OrderedDict[int, Future[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(FETCHING, thread_name_prefix="zoo-stream")

    def image(self, index: int, *, resolution: int, channels: int) -> Pixels:
        with self.open(index) as file:
            return decode(file, resolution=resolution, channels=channels)

    def open(self, index: int) -> IO[bytes]:
        group = int(np.searchsorted(self._ends, index, side="right"))
        rows = self._group(group).result()
        stored = rows[index - int(self._ends[group] - self._sizes[group])].as_py()
        content = stored["bytes"] if isinstance(stored, dict) else stored
        if content is None:
            raise ValueError("the row holds no image")
        return io.BytesIO(content)

    def expect(self, indices: Sequence[int] | NDArray[np.int64]) -> None:
        """Begin to fetch the groups of these images."""
        for group in np.unique(np.searchsorted(self._ends, indices, side="right")):
            self._group(int(group))

    def fingerprint(self) -> str:
        return hashlib.sha256(self._digest.encode()).hexdigest()

    def stamp(self) -> str:
        return self.fingerprint()

    def _group(self, group: int) -> Future[Any]:
        with self._lock:
            if group not in self._loaded:
                self._loaded[group] = self._pool.submit(self._fetch, group)
            self._loaded.move_to_end(group)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return self._loaded[group]

    def _fetch(self, group: int) -> Any:
        place, number = self._where[group]
        footer = self._footer(place)
        return self._opened(self._urls[place], lambda file: _column(_parquet(file, footer), number, self._column))

    def _read_footer(self, place: int) -> Any:
        return self._opened(self._urls[place], lambda file: _parquet(file).metadata)

    def _look(self, label: str | None) -> Footers:
        found = self._each(lambda file, _: _footers(_parquet(file), label))
        labels = [-1 if each is None else each for _, part in found for each in part]
        return Footers(rows=[rows for rows, _ in found], labels=labels if labels and min(labels) >= 0 else None)

    def _each(self, look: Any) -> list[Any]:
        """Return what `look(file, url)` finds in every file."""
        with ThreadPoolExecutor(LOOKING) as pool:
            return list(pool.map(lambda url: self._opened(url, lambda file: look(file, url)), self._urls))

    def _opened(self, url: str, read: Any) -> Any:
        """Return what `read` finds in a file, tried again while the network is away. Raises DataError."""
        import fsspec

        for pause in (*PAUSES, None):
            try:
                with fsspec.open(url, "rb") as file:
                    return read(file)
            except Exception as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                if pause is None or isinstance(error, FileNotFoundError | ValueError):
                    raise DataError(f"{self.name}: {url} cannot be read: {lines[0]}") from error
                log.warning("%s: %s; trying again in %g s.", self.name, lines[0], pause)
                time.sleep(pause)
        raise AssertionError


def _urls(address: Address, splits: dict[str, list[str]]) -> list[str]:
    split = address.split or ("train" if "train" in splits else next(iter(splits), ""))
    if split not in splits:
        raise DataError(f"{address.spec} has no split {split!r}; it has: {', '.join(splits) or 'none'}.")
    urls = [str(url) for url in splits[split]]
    if other := next((url for url in urls if not url.lower().endswith(".parquet")), None):
        found = f"{address.spec} holds {os.path.basename(other)}, but only Parquet can be streamed"
        advice = f"hf-stream:{address.repository}@refs/convert/parquet, where the Hub keeps most sets as Parquet too"
        raise DataError(f"{found}: try {advice}.")
    return urls


def _parquet(file: Any, footer: Any = None) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(file, metadata=footer, pre_buffer=True)


def _column(parquet: Any, number: int, column: str) -> Any:
    return parquet.read_row_group(number, columns=[column]).column(0)


def _footers(parquet: Any, label: str | None) -> tuple[list[int], list[int | None]]:
    """Return the rows of each row group of a file, and the label of each row."""
    rows = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
    return rows, parquet.read([label]).column(0).to_pylist() if label else []


def _identity(file: Any, url: str) -> tuple[str, int, str]:
    """Return name, bytes and what changes when the file does: of the Hub its commit, which is part of the URL."""
    if "://" in url:
        return url, int(file.size), ""
    found = os.stat(url)
    return os.path.basename(url), found.st_size, f"{found.st_mtime_ns} {found.st_ctime_ns} {os.path.realpath(url)}"
