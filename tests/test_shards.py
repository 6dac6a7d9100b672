"""Tar shards: read in place in the same keyed order as a folder, and no tar, however hostile, does harm."""

import io
import json
import random
import shutil
import tarfile
from contextlib import suppress
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data import batches, open_images, open_source
from zoo.errors import DataError

N = 24


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def png(index, size=8):
    file = io.BytesIO()
    Image.new("RGB", (size, size), (index, 255 - index, 7)).save(file, "png")
    return file.getvalue()


def member(name, **settings):
    made = tarfile.TarInfo(name)
    for key, value in settings.items():
        setattr(made, key, value)
    return made


def add(archive, name, content, **settings):
    archive.addfile(member(name, size=len(content), **settings), io.BytesIO(content))


def write(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in samples:
            add(archive, name, content)
    return path


@pytest.fixture
def shards(tmp_path):
    """Three shards of eight samples with a number for a class, as WebDataset writes them."""
    for shard in range(3):
        samples = []
        for index in range(shard * 8, shard * 8 + 8):
            samples += [(f"{index:06}.png", png(index)), (f"{index:06}.cls", b"%d" % (index % 4))]
        write(tmp_path / "shards" / f"{shard:02}.tar", samples)
    return tmp_path / "shards"


def opened(spec, **options):
    return open_images(spec, **{"resolution": 8, "channels": 3, **options})


def shown(images):
    return images.read(range(len(images)))[:, 0, 0, 0].tolist()


def one(tmp_path, samples, **options):
    return opened(write(tmp_path / "one.tar", samples), **options)


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"memory": 0}, {"memory": 0, "workers": 2}, {"cache": 0}])
def test_shards_are_read_as_a_folder_of_the_same_images(shards, tmp_path, options):
    images = opened(shards, **options)
    assert shown(images) == list(range(N))
    assert images.classes == ("0", "1", "2", "3")
    assert images.labels.tolist() == [index % 4 for index in range(N)]
    folder = tmp_path / "folder"
    for index in range(N):
        (folder / str(index % 4)).mkdir(parents=True, exist_ok=True)
        (folder / str(index % 4) / f"{index:06}.png").write_bytes(png(index))
    # A folder is sorted by class, so the same seed shows the same places of another list.
    places = opened(folder)
    streams = [batches(each, batch=8, seed=3, start=2, mirror=True, share=1, shares=2) for each in (images, places)]
    order = np.argsort([index % 4 for index in range(N)], kind="stable").tolist()
    for (first, labels), (second, _) in islice(zip(*streams), 9):
        assert [order.index(int(pixel)) for pixel in first[:, 0, 0, 0]] == [
            shown(places).index(int(pixel)) for pixel in first[:, 0, 0, 0]
        ]
        assert labels.tolist() == [int(pixel) % 4 for pixel in first[:, 0, 0, 0]]
        assert first.shape == second.shape == (4, 3, 8, 8)


def test_a_run_goes_on_with_the_next_image(shards):
    drawn = [images[:, 0, 0, 0].tolist() for images, _ in islice(batches(opened(shards), batch=4, seed=1), 14)]
    rest = batches(opened(shards, memory=0), batch=4, seed=1, start=5)
    assert [images[:, 0, 0, 0].tolist() for images, _ in islice(rest, 9)] == drawn[5:]
    assert sorted(pixel for part in drawn[:6] for pixel in part) == list(range(N))


def test_every_way_to_name_them(shards):
    for spec in (shards, f"{shards}/{{00..02}}.tar", f"{shards}/0{{0,1,2}}.tar", f"{shards}/{{00..01}}.tar"):
        images = opened(spec)
        assert shown(images) == list(range(len(images)))
    assert len(images) == 16
    assert shown(opened(shards / "01.tar")) == list(range(8, 16))
    nested = shards.parent / "nested" / "train"
    shutil.copytree(shards, nested)
    assert shown(opened(nested.parent)) == list(range(N))


@pytest.mark.parametrize(("pattern", "message"), [
    ("{00..03}.tar", r"03\.tar is missing: get it, or change the pattern"),
    ("{0..999999}.tar", r"more than 100000 files"),
    ("{a,b}.tar", r"a\.tar is missing"),
])
def test_a_pattern_that_is_not_all_there_is_one_line(shards, pattern, message):
    with pytest.raises(DataError, match=message) as caught:
        opened(f"{shards}/{pattern}")
    assert "\n" not in str(caught.value)


def test_compressed_tars_say_what_to_do(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        add(archive, "a.png", png(1))
    with pytest.raises(DataError, match=r"is compressed, so nothing in it can be found: make it a \.tar"):
        opened(tmp_path / "a.tar.gz")


def test_tars_beside_images_are_named(shards):
    (shards / "loose.png").write_bytes(png(9))
    images = opened(shards)
    assert len(images) == 1
    assert [why for _, why in images.skipped] == ["a tar beside image files; put it elsewhere"] * 3


# --- labels -----------------------------------------------------------------------------------------------------------


def test_labels_beside_the_images(tmp_path):
    def labels(*samples):
        images = one(tmp_path, samples)
        return images.classes, None if images.labels is None else images.labels.tolist()

    told = json.dumps({"label": 2, "other": [1]}).encode()
    numbers = [("a.png", png(0)), ("a.json", told), ("b.json", b'{"cls": 0}'), ("b.png", png(1))]
    assert labels(*numbers) == (("0", "1", "2"), [2, 0])
    names = [("a.cls", b"zebra\n"), ("a.png", png(0)), ("b.png", png(1)), ("b.cls", b"ant")]
    assert labels(*names) == (("ant", "zebra"), [1, 0])
    assert labels(*names[:3]) == ((), None)                      # one without a label: no classes
    long = [("a.png", png(0)), ("a.cls", b"7"), ("b.png", png(1)), ("b.cls", b"123456789")]
    assert labels(*long) == (("123456789", "7"), [1, 0])
    nonsense = [("a.png", png(0)), ("a.json", b"[" * 100_000), ("b.png", png(1)), ("b.json", b"{}")]
    assert labels(*nonsense) == ((), None)


def test_folders_in_tars_are_classes_where_nothing_else_is(tmp_path):
    images = one(tmp_path, [("pack/dog/b.png", png(1)), ("./pack/cat/a.png", png(0)), ("pack/dog/.hidden.png", b"")])
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 1]
    assert shown(images) == [0, 1]
    assert images.skipped == ()


def test_masks_beside_an_image_are_no_images(tmp_path):
    samples = [("1.jpg", png(1)), ("1.mask.png", png(99)), ("1.txt", b"caption"), ("photo.v2.png", png(2))]
    assert shown(one(tmp_path, samples)) == [1, 2]


# --- the kept index ---------------------------------------------------------------------------------------------------


def test_the_index_is_made_once_and_again_when_it_or_the_tar_changes(shards, home):
    opened(shards)
    notes = sorted((home / "indexes").iterdir())
    assert len(notes) == 3
    times = [note.stat().st_mtime_ns for note in notes]
    opened(shards)
    assert [note.stat().st_mtime_ns for note in notes] == times
    for note in notes:                                           # cut, altered, emptied
        content = note.read_bytes()
        note.write_bytes([content[:-9], content.replace(b"000", b"001", 1), b""][notes.index(note)])
    assert shown(opened(shards)) == list(range(N))
    write(shards / "01.tar", [("x.png", png(200)), ("x.cls", b"1")])
    assert shown(opened(shards)) == [*range(8), 200, *range(16, 24)]


def test_a_home_that_cannot_be_written_costs_only_time(shards, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "file" / "home"))
    assert shown(opened(shards)) == list(range(N))


def test_fingerprints_follow_contents(shards):
    first = opened(shards).fingerprint
    assert opened(f"{shards}/{{00..02}}.tar").fingerprint == first
    write(shards / "02.tar", [(f"{index:06}.png", png(index + 1)) for index in range(16, 24)])
    assert opened(shards).fingerprint != first


# --- hostile and broken -----------------------------------------------------------------------------------------------


def test_hostile_members_are_named_and_nothing_is_written(tmp_path, home):
    path, outside = tmp_path / "one.tar", tmp_path / "secret.png"
    outside.write_bytes(png(66))
    with tarfile.open(path, "w") as archive:
        add(archive, "good.png", png(5))
        archive.addfile(member("link.png", type=tarfile.SYMTYPE, linkname=str(outside)))
        archive.addfile(member("hard.png", type=tarfile.LNKTYPE, linkname="good.png"))
        archive.addfile(member("device.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5))
        archive.addfile(member("pipe.png", type=tarfile.FIFOTYPE))
        add(archive, "/tmp/absolute.png", png(1))
        add(archive, "../up.png", png(1))
        add(archive, "a/../../up.png", png(1))
        add(archive, "line\nbreak\udcff.png", b"torn")
        add(archive, "sparse.png", png(1), pax_headers={"GNU.sparse.major": "0", "GNU.sparse.minor": "1",
                                                        "GNU.sparse.size": str(1 << 40), "GNU.sparse.map": "0,10"})
        archive.addfile(member("huge.png", size=300 << 20))
        archive.fileobj.truncate(archive.fileobj.tell() + (300 << 20))           # a hole of that size
        archive.fileobj.seek(0, io.SEEK_END)
        archive.offset = archive.fileobj.tell()
        add(archive, "last.png", png(6))
    before = sorted(each.name for each in tmp_path.iterdir())
    images = opened(path)
    assert shown(images) == [5, 6]
    assert {name.removeprefix("one.tar/"): why for name, why in images.skipped} == {
        "link.png": "a link",
        "hard.png": "a link",
        "device.png": "not a regular file",
        "pipe.png": "not a regular file",
        "/tmp/absolute.png".lstrip("/"): "its name leaves the archive",
        "../up.png": "its name leaves the archive",
        "a/../../up.png": "its name leaves the archive",
        "line\\nbreak\\udcff.png": "not an image, or of a kind that is not read",
        "sparse.png": "sparse",
        "huge.png": "takes more than 256 MB",
    }
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted({*before, "home"})


def test_a_tar_cut_anywhere_gives_what_is_whole(tmp_path):
    whole = write(tmp_path / "one.tar", [(f"{index}.png", png(index)) for index in range(4)]).read_bytes()
    ends = [end for end in range(0, len(whole), 512) if whole[end : end + 5].endswith(b".png")]
    assert len(ends) == 4
    chance = random.Random(0)
    for length in sorted({*(chance.randrange(len(whole)) for _ in range(40)), 512, 1024, 1536, ends[3] + 600}):
        (tmp_path / "one.tar").write_bytes(whole[:length])
        complete = sum(end + 512 + len(png(0)) <= length for end in ends)
        if not complete:
            with pytest.raises(DataError, match=r"no image in|is empty") as caught:
                opened(tmp_path / "one.tar")
            assert "\n" not in str(caught.value)
            continue
        images = opened(tmp_path / "one.tar")
        assert shown(images) == list(range(complete))
        if length < ends[3] + 1024:
            assert images.skipped, length


def test_headers_that_lie_are_refused_in_time(tmp_path):
    good = write(tmp_path / "one.tar", [("0.png", png(0))]).read_bytes()[:1024]
    nested = (member("x", type=tarfile.GNUTYPE_LONGNAME, size=2).tobuf() + b"x".ljust(512, b"\0")) * 5000
    claims = member("x", type=tarfile.XHDTYPE, size=1 << 33).tobuf() + bytes(4096)
    noise = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8).tobytes()
    for rest in (nested, claims, noise, b"\xff" * 4096):
        (tmp_path / "one.tar").write_bytes(good + rest)
        images = opened(tmp_path / "one.tar")
        assert shown(images) == [0]
        ((name, why),) = images.skipped
        assert name == "one.tar"
        assert "damaged" in why


def test_flipped_bits_never_end_in_a_traceback(tmp_path):
    whole = write(tmp_path / "one.tar", [(f"{index}.png", png(index)) for index in range(3)]).read_bytes()
    chance = random.Random(1)
    for _ in range(100):
        altered = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            altered[chance.randrange(4096)] ^= 1 << chance.randrange(8)
        (tmp_path / "one.tar").write_bytes(altered)
        with suppress(DataError):                                # anything else fails the test
            assert len(opened(tmp_path / "one.tar")) <= 3


def test_a_shard_that_is_cut_or_vanishes_later_costs_its_images_alone(shards, caplog):
    images = opened(shards, memory=0)
    (shards / "02.tar").unlink()
    whole = (shards / "01.tar").read_bytes()
    (shards / "01.tar").write_bytes(whole[: len(whole) // 2])
    assert torch.equal(images.read([0, 7]), opened(shards / "00.tar").read([0, 7]))
    assert images.read([23])[0, 0, 0, 0] == 0                    # the next one that can be read
    assert all(why in ("No such file or directory", "cut short") for _, why in images.skipped)


def test_a_source_of_shards_opens_members_as_they_are(shards):
    source = open_source(shards)
    with source.open(3) as file:
        assert file.read() == png(3)
    assert source.names[3] == "00.tar/000003.png"
