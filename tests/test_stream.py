"""Parquet rows that are fetched while they are wanted, and which part of a data set an address names."""

import io
import json
import logging
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data import batches, open_images
from zoo.data.hub import Address
from zoo.errors import DataError

COUNTS = (70, 69, 41)          # rows of the three files of `train`
N = sum(COUNTS)


@pytest.mark.parametrize(("spec", "expected"), [
    ("hf:acme/cats", ("acme/cats", None, None, None)),
    ("hf:acme/cats:test", ("acme/cats", None, None, "test")),
    ("hf:acme/cats@3f2c1a9", ("acme/cats", "3f2c1a9", None, None)),
    ("hf-stream:acme/cats@refs/convert/parquet:large/test", ("acme/cats", "refs/convert/parquet", "large", "test")),
    ("hf:acme/cats:large/", ("acme/cats", None, "large", None)),
    ("hf:acme/cats:train[:10%]", ("acme/cats", None, None, "train[:10%]")),
])
def test_addresses(spec, expected):
    address = Address.parse(spec)
    assert (address.repository, address.revision, address.configuration, address.split) == expected


@pytest.mark.parametrize("spec", ["hf:", "hf:@main", "hf:a/b@", "hf:a/b@c@d", "hf-stream:a/b:/train"])
def test_addresses_that_name_nothing_are_one_line(spec):
    with pytest.raises(DataError, match=r"write hf(-stream)?:OWNER/DATASET\[@REVISION\]") as caught:
        open_images(spec, resolution=8, channels=3)
    assert "\n" not in str(caught.value)


def png(index):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (index, index % 3, 7)).save(file, "png")
    return file.getvalue()


def write(path, rows, labels=True, broken=()):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    features = {"image": {"_type": "Image"}, "label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}
    types = [("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])), ("label", arrow.int64())]
    known = {"huggingface": json.dumps({"info": {"features": features if labels else {"image": features["image"]}}})}
    schema = arrow.schema(types if labels else types[:1], metadata=known)
    images = [{"bytes": b"torn" if index in broken else png(index), "path": None} for index in rows]
    columns = {"image": images, **({"label": [index % 3 for index in rows]} if labels else {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table(columns, schema=schema), path, row_group_size=10)


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """A data set of three Parquet files in row groups of ten; `datasets` takes a folder where it takes a repository."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    first = 0
    for number, count in enumerate(COUNTS):
        write(Path(f"acme/cats/data/train-{number:05}-of-00003.parquet"), range(first, first + count))
        first += count
    write(Path("acme/cats/data/test-00000-of-00001.parquet"), range(200, 212))
    return "hf-stream:acme/cats"


def opened(spec, **options):
    return open_images(spec, **{"resolution": 4, "channels": 3, **options})


def drawn(images, steps, **options):
    rows = []
    for pixels, labels in islice(batches(images, **{"batch": 12, "seed": 5, **options}), steps):
        numbers = pixels[:, 0, 0, 0].tolist()
        assert labels.tolist() == [number % 3 for number in numbers]
        rows.append(numbers)
    return rows


@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_is_shown_once_an_epoch_and_a_run_goes_on_exactly(stream, workers):
    images = opened(stream, workers=workers)
    assert (len(images), images.classes, images.in_memory) == (N, ("a", "b", "c"), False)
    assert images.labels.tolist() == [index % 3 for index in range(N)]
    whole = drawn(images, 31)
    flat = [number for row in whole for number in row]
    assert sorted(flat[:N]) == sorted(flat[N : 2 * N]) == list(range(N))
    for start in (1, 14, 15, 30):
        assert drawn(opened(stream), 31 - start, start=start) == whole[start:]
    for shares in (2, 3):
        parts = [drawn(opened(stream), 20, share=share, shares=shares) for share in range(shares)]
        for step, row in enumerate(whole[:20]):
            assert [parts[place % shares][step][place // shares] for place in range(12)] == row


def test_streamed_and_downloaded_rows_are_the_same(stream):
    for part in ("", ":test", ":train"):
        streamed, local = opened(stream + part), opened(stream.replace("-stream", "") + part)
        everything = range(len(local))
        assert all(torch.equal(a, b) for a, b in zip(streamed.rows(everything), local.rows(everything)))


def test_fingerprint_follows_the_files(stream):
    first = opened(stream).fingerprint
    assert opened(stream, channels=1).fingerprint == first
    assert opened(f"{stream}:test").fingerprint != first
    write(Path("acme/cats/data/train-00002-of-00003.parquet"), range(40))
    assert opened(stream).fingerprint != first


def test_a_broken_row_is_replaced_by_the_next_everywhere(stream, caplog):
    write(Path("acme/cats/data/train-00000-of-00003.parquet"), range(70), broken=(3, 4))
    with caplog.at_level(logging.WARNING, logger="zoo"):
        first, again = drawn(opened(stream), 30), drawn(opened(stream, workers=2), 30)
    assert first == again
    assert sum(row.count(5) for row in first) == 6               # two epochs, and for 3 and 4
    assert sorted({record.getMessage().split(" cannot")[0][-5:] for record in caplog.records}) == ["row 3", "row 4"]


def test_files_that_vanish_end_the_training_with_one_line(stream):
    images = opened(stream)
    shutil.rmtree("acme")
    with pytest.raises(DataError, match=r"cannot be read: .*No such file") as caught:
        list(islice(batches(images, batch=12, seed=0), 30))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("part", "message"), [
    (":tests", r"has no split 'tests'; it has: (train, test|test, train)"),
    (":small/train", r"'small' not found"),
])
def test_parts_that_are_not_there(stream, part, message):
    with pytest.raises(DataError, match=message):
        opened(stream + part)


def test_what_is_no_parquet_names_the_way_out(stream):
    folder = Path("acme/photos")
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes(png(1))
    with pytest.raises(DataError, match=r"only Parquet can be streamed: try hf-stream:acme/photos@refs/"):
        opened("hf-stream:acme/photos")


def test_rows_without_labels(stream):
    write(Path("acme/plain/data/train-00000-of-00001.parquet"), range(25), labels=False)
    images = opened("hf-stream:acme/plain")
    assert (images.labels, images.classes) == (None, ())
    pixels, labels = images.rows(range(25))
    assert labels is None
    assert np.array_equal(pixels[:, 0, 0, 0], np.arange(25))
