"""Decoded images on disk: never other pixels than without them, whatever happens to the folder."""

import hashlib
import json
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import kill_in_decoding
from PIL import Image

from zoo.data import batches, open_images

N = 30
ALWAYS = {"resolution": 8, "channels": 3, "cache": 0}
BAD = (3, 4, 17, 29)


def make_images(folder, n=N, size=8):
    """Image i is noise of seed i; three classes."""
    for index in range(n):
        path = folder / "abc"[index * 3 // n] / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(index).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "images"


@pytest.fixture
def folder(tmp_path):
    return make_images(tmp_path / "photos")


def opened(folder, **options):
    """Open it, and say how many images were decoded for that."""
    heard = []
    images = open_images(folder, **{**ALWAYS, **options}, progress=lambda done, total: heard.append(done))
    return images, max(heard, default=0)


def whole(images):
    return images.rows(range(len(images)))


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second))


def folders(home):
    return [path for path in home.iterdir() if path.is_dir()] if home.exists() else []


def only(home):
    (path,) = folders(home)
    return path


def forked(function, *arguments):
    """Start a process that calls a function, and return what joins it and gives what the function returned."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=lambda: there.send(function(*arguments)))
    process.start()

    def ended():
        assert here.poll(60)
        result = here.recv()
        process.join(60)
        assert process.exitcode == 0
        return result

    return ended


def look(folder, memory):
    """Open images and return how many were decoded for that, what it said, and a digest of the pixels."""
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("zoo").addHandler(handler)
    images, decoded = opened(folder, memory=memory)
    return decoded, said, digest(*whole(images))


def digest(pixels, labels):
    return hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize("bad", [(), BAD])
def test_the_same_images_with_and_without(folder, home, memory, bad, workers):
    for index in bad:
        next(folder.glob(f"*/{index:04}.png")).write_bytes(b"torn")
    plain, _ = opened(folder, cache=None, memory=memory, workers=workers)
    made, decoded = opened(folder, memory=memory, workers=workers)
    again, decoded_again = opened(folder, memory=memory, workers=workers)
    assert (decoded, decoded_again) == (N, 0)
    assert len(plain) == len(made) == len(again) == (N - len(bad) if memory else N)
    assert plain.in_memory == made.in_memory == again.in_memory == bool(memory)
    assert plain.fingerprint == made.fingerprint == again.fingerprint
    for images in (made, again):
        assert same(whole(images), whole(plain))
        assert np.array_equal(whole(images)[1], images.labels)
        streams = [batches(each, batch=8, seed=5, mirror=True, share=1, shares=2) for each in (plain, images)]
        assert all(same(a, b) for a, b in islice(zip(*streams), 12))
    assert made.skipped == again.skipped
    assert len(again.skipped) == len(bad)
    assert set(again.skipped) >= set(plain.skipped)              # on demand a broken file shows when it is wanted


@pytest.mark.parametrize("cache", [None, 0])
@pytest.mark.parametrize("workers", [0, 2])
def test_broken_files_are_replaced_alike_after_a_resume_and_in_every_process(folder, home, workers, cache):
    for index in BAD:
        next(folder.glob(f"*/{index:04}.png")).write_bytes(b"torn")
    options = {"memory": 0, "cache": cache}
    whole = list(islice(batches(opened(folder, **options)[0], batch=8, seed=2), 20))
    for start in (1, 7, 13):
        rest = batches(opened(folder, **options, workers=workers)[0], batch=8, seed=2, start=start)
        assert all(same(a, b) for a, b in islice(zip(whole[start:], rest), 7))
    for share in range(4):
        part = batches(opened(folder, **options, workers=workers)[0], batch=8, seed=2, share=share, shares=4)
        for (images, labels), mine in zip(whole[:8], part):
            assert same((images[share::4], labels[share::4]), mine)


def test_a_set_that_decodes_at_once_is_not_kept(folder, home):
    open_images(folder, resolution=8, channels=3)
    open_images("emoji", resolution=8, channels=3)
    assert folders(home) == []


def test_only_another_size_or_colour_is_decoded_anew(folder, home):
    for options, decoded in (({}, N), ({"resolution": 16}, N), ({"channels": 1}, N), ({}, 0), ({"workers": 2}, 0)):
        assert opened(folder, **options)[1] == decoded
    assert len(folders(home)) == 3


def test_a_moved_folder_keeps_its_decoded_images(folder, home):
    opened(folder)
    assert opened(folder.rename(folder.with_name("moved")))[1] == 0


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_are_kept_too(folder, home, kind):
    plain, _ = opened(folder, cache=None)
    packed = Path(shutil.make_archive(str(folder.parent / "packed"), kind, folder))
    made, again = opened(packed), opened(packed)
    assert (made[1], again[1]) == (N, 0)
    assert same(whole(again[0]), whole(plain))
    assert again[0].classes == plain.classes == ("a", "b", "c")


def test_changed_files_are_seen_behind_equal_names_sizes_and_times(folder, home):
    first, _ = opened(folder)
    path = folder / "a" / "0000.png"
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-20] + bytes(20))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after, decoded = opened(folder)
    assert decoded == N
    assert len(after) == N - 1
    assert after.fingerprint != first.fingerprint


def test_files_that_vanish_after_they_were_decoded_are_not_missed(folder, home):
    expected = whole(opened(folder, cache=None)[0])
    images, _ = opened(folder, memory=0)
    shutil.rmtree(folder)
    assert same(whole(images), expected)
    assert images.skipped == ()


def test_what_could_not_be_read_for_a_while_is_tried_again(monkeypatch):
    if os.geteuid():
        pytest.skip("needs a second user")
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        root.chmod(0o755)
        folder = make_images(root / "photos")
        (folder / "a" / "0001.png").chmod(0)
        (root / "home").mkdir()
        (root / "home").chmod(0o777)
        monkeypatch.setenv("ZOO_HOME", str(root / "home"))
        seen = []
        for user in (65534, 65534, 0, 65534):
            os.seteuid(user)
            try:
                images, decoded = opened(folder)
            finally:
                os.seteuid(0)
            seen.append((len(images), decoded, dict(images.skipped)))
        denied = {"a/0001.png": "Permission denied"}
        assert seen == [(N - 1, N, denied), (N - 1, 0, denied), (N, N, {}), (N, 0, {})]


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize("name", ["pixels", "index.json"])
def test_a_cut_or_missing_file_is_made_again(folder, home, name, memory, caplog):
    expected = whole(opened(folder, memory=memory)[0])
    path = only(home) / name
    content = path.read_bytes()
    for length in (None, 0, 1, len(content) // 2, len(content) - 3):
        path.unlink()
        if length is not None:
            path.write_bytes(content[:length])
        caplog.clear()
        images, decoded = opened(folder, memory=memory)
        assert decoded == N
        assert same(whole(images), expected)
        assert [record.getMessage().count("damaged") for record in caplog.records] == [1]
        assert path.read_bytes()[:100] == content[:100]
    assert opened(folder)[1] == 0


def test_a_flipped_bit_is_seen_when_the_image_is_read(folder, home, caplog):
    images, _ = opened(folder)
    expected, path = whole(images), only(home) / "pixels"
    for place in np.random.default_rng(0).integers(0, N * 192, 20).tolist():
        before = path.stat()
        with path.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 4]))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        caplog.clear()
        damaged, decoded = opened(folder)
        assert decoded == 0
        for _ in range(2):
            assert same(whole(damaged), expected)
        assert [record.getMessage().count("1 images differ") for record in caplog.records] == [1]
        assert opened(folder)[1] == N


def test_a_flipped_bit_in_index_or_checksums_is_seen_at_once(folder, home):
    expected = whole(opened(folder)[0])
    places = [("index.json", place) for place in range(0, 400, 23)] + [("pixels", N * 192 + n) for n in (0, 50, 119)]
    for name, place in places:
        path = only(home) / name
        content = bytearray(path.read_bytes())
        if place >= len(content) or bytes([content[place], content[place] ^ 1]).isspace():
            continue
        content[place] ^= 1
        path.write_bytes(content)
        images, decoded = opened(folder)
        assert same(whole(images), expected)
        assert decoded == N, (name, place)


def test_a_file_cut_while_it_is_read_does_not_end_the_process(folder, home, caplog):
    expected = whole(opened(folder, cache=None)[0])
    images, _ = opened(folder, memory=0)
    os.truncate(only(home) / "pixels", 100)
    for _ in range(2):
        assert same(whole(images), expected)
    assert len(caplog.records) == 1
    assert opened(folder)[1] == N


def test_a_folder_deleted_while_it_is_read_is_not_missed(folder, home):
    images, _ = opened(folder)
    expected = whole(images)
    shutil.rmtree(home)
    assert same(whole(images), expected)
    assert opened(folder)[1] == N


# --- processes --------------------------------------------------------------------------------------------------------


def test_processes_that_start_together_decode_once(tmp_path, home):
    folder = make_images(tmp_path / "many", 300, 32)
    ended = [forked(look, folder, 0) for _ in range(4)]
    seen = [each() for each in ended]
    assert sorted(decoded for decoded, *_ in seen) == [0, 0, 0, 300]
    assert len({pixels for *_, pixels in seen}) == 1
    assert not only(home).name.startswith(".")


def test_processes_that_decode_different_sets_leave_each_other_alone(tmp_path, home):
    made = [make_images(tmp_path / f"set{number}", 120 + number, 32) for number in range(4)]
    ended = [forked(look, folder, 0) for folder in made]
    assert [each()[:2] for each in ended] == [(120 + number, []) for number in range(4)]
    assert len(folders(home)) == 4
    assert not [path for path in folders(home) if path.name.startswith(".")]


# Its short form; tests/faults/kill_in_decoding.py kills more often.
def test_killed_while_decoding_leaves_nothing_that_is_used(tmp_path):
    assert kill_in_decoding.main(["--count", "4", "--folder", str(tmp_path)]) == 0


@pytest.mark.slow
def test_killed_while_decoding_200_times(tmp_path):
    assert kill_in_decoding.main(["--count", "200", "--folder", str(tmp_path)]) == 0


# --- no room ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_a_home_that_cannot_be_written_costs_one_line(folder, tmp_path, monkeypatch, memory, caplog):
    expected = whole(opened(folder, cache=None)[0])
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "file" / "home"))
    images, _ = opened(folder, memory=memory)
    assert same(whole(images), expected)
    (record,) = caplog.records
    assert "cannot be kept" in record.getMessage()
    assert "ZOO_HOME" in record.getMessage()


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_a_write_that_fails_half_way_costs_one_line(folder, home, memory):
    """The system lets the process write 2,000 bytes to a file, of 5,880."""
    expected = digest(*whole(opened(folder, cache=None)[0]))

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        return look(folder, memory)

    _, said, pixels = forked(limited)()
    assert pixels == expected
    assert [line.count("cannot be kept in") for line in said] == [1]
    assert folders(home) == []


def test_a_limit_that_is_too_small_costs_one_line(folder, home, monkeypatch, caplog):
    monkeypatch.setenv("ZOO_IMAGES_GB", "0.000001")
    assert len(whole(opened(folder)[0])[0]) == N
    assert "they take 0.00 GB of at most 0.00 GB, which ZOO_IMAGES_GB can change" in caplog.records[0].getMessage()
    assert folders(home) == []


def test_a_limit_of_nothing_keeps_nothing_and_says_nothing(folder, home, monkeypatch, caplog):
    monkeypatch.setenv("ZOO_IMAGES_GB", "0")
    opened(folder)
    assert not home.exists()
    assert caplog.records == []


def test_what_was_not_used_for_longest_makes_room(folder, home, monkeypatch):
    names = {}
    for resolution in (8, 9, 10):
        before = set(folders(home))
        opened(folder, resolution=resolution)
        (names[resolution],) = set(folders(home)) - before
    day = time.time() - 86_400
    for age, resolution in ((3, 8), (2, 9), (1, 10)):
        os.utime(names[resolution] / "index.json", (day * 1, day - age * 86_400))
    opened(folder, resolution=8)                                 # used just now
    monkeypatch.setenv("ZOO_IMAGES_GB", str((N * 3 * (8 * 8 + 10 * 10 + 11 * 11) + 12 * N + 100) / 1e9))
    opened(folder, resolution=11)
    assert names[9] not in folders(home)
    assert {names[8], names[10]} < set(folders(home))


def test_what_a_process_uses_is_not_removed(folder, home, monkeypatch, caplog):
    images, _ = opened(folder)
    monkeypatch.setenv("ZOO_IMAGES_GB", str((N * 3 * 81 + 4 * N + 100) / 1e9))
    kept = only(home)
    opened(folder, resolution=9)
    assert folders(home) == [kept]
    assert "cannot be kept" in caplog.records[0].getMessage()
    del images
    opened(folder, resolution=9)
    assert only(home) != kept


# --- held on a device -------------------------------------------------------------------------------------------------


def test_a_set_is_held_where_it_takes_little_of_the_memory(folder, home):
    images, _ = opened(folder, memory=0)
    size = N * 3 * 8 * 8
    assert images.to("cpu") is images                            # the host holds nothing by itself
    assert images.to("cpu", free=4 * size - 1) is images
    held = images.to("cpu", free=4 * size)
    assert (held.in_memory, images.in_memory) == (True, False)
    assert held.to("cpu", free=1 << 40) is held                  # not once more
    shutil.rmtree(folder)
    shutil.rmtree(home)
    wanted = [29, 3, 3, 0]
    assert same(held.rows(wanted), images.rows(wanted))
    streams = [batches(each, batch=8, seed=1, mirror=True) for each in (images, held)]
    assert all(same(a, b) for a, b in islice(zip(*streams), 8))


def test_a_set_decoded_on_demand_is_not_held(folder):
    images, _ = opened(folder, memory=0, cache=None)
    assert images.to("cpu", free=1 << 40) is images


def test_batches_lie_on_the_device_asked_for(folder):
    """The meta device has no values but takes every call: what is not held is moved."""
    images, _ = opened(folder, cache=None)
    pixels, labels = next(batches(images, batch=8, seed=0, device="meta"))
    assert (pixels.device.type, labels.device.type) == ("meta", "meta")
    assert (pixels.shape, pixels.dtype) == ((8, 3, 8, 8), torch.uint8)


@pytest.mark.gpu
def test_on_a_gpu_held_and_copied_batches_are_equal(folder):
    ready, lazy = opened(folder, cache=None)[0], opened(folder, cache=None, memory=0)[0]
    assert ready.to("cuda").device.type == "cuda"
    streams = [batches(each, batch=8, seed=1, mirror=True, device="cuda") for each in (ready, lazy)]
    host = batches(ready, batch=8, seed=1, mirror=True)
    for held, copied, (pixels, labels) in islice(zip(*streams, host), 12):
        assert held[0].device.type == copied[0].device.type == "cuda"
        assert torch.equal(held[0].cpu(), pixels)
        assert torch.equal(copied[0].cpu(), pixels)
        assert torch.equal(held[1].cpu(), labels)


def test_index_says_what_people_want_to_know(folder, home):
    (folder / "a" / "0000.png").write_bytes(b"torn")
    opened(folder)
    index = json.loads((only(home) / "index.json").read_text())
    assert index["name"] == str(folder)
    assert index["shape"] == [N - 1, 3, 8, 8]
    assert index["failed"] == [{"index": 0, "reason": "not an image, or of a kind that is not read", "passing": False}]
