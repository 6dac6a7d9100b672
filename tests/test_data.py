"""zoo.data: real files of every kind in, the promised tensors out."""

import io
import json
import logging
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile
import zlib
from collections import Counter
from contextlib import contextmanager
from importlib.resources import files
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from zoo.data import ImageSet, batches, normalise, open_images
from zoo.errors import ConfigError, DataError

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def colour(path, fill=RED, size=(8, 8), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, fill).save(path, **options)
    return path


def halves(left, right, size=(16, 16), mode="RGB"):
    image = Image.new(mode, size, right)
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    return image


def opened(spec, channels=3, resolution=8, **options):
    return open_images(spec, resolution=resolution, channels=channels, **options)


def only(folder, channels=3, resolution=8):
    """The one image of a folder, [C, H, W]."""
    images = opened(folder, channels, resolution)
    assert images.skipped == ()
    assert len(images) == 1
    return images.read([0])[0]


def near(pixel, expected, slack=0):
    return max(abs(int(a) - b) for a, b in zip(pixel, expected)) <= slack


@pytest.fixture
def numbered(tmp_path):
    """Twelve images whose grey level is 20 x their index, in a left half and black on the right; three classes."""
    for index in range(12):
        path = tmp_path / "numbered" / "abc"[index // 4] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        halves((index * 20 + 10,) * 3, (0, 0, 0), (4, 4)).save(path)
    return tmp_path / "numbered"


def numbers(images):
    """The index that `numbered` drew into each image, and whether it is mirrored."""
    left, right = images[:, 0, 0, 0].int(), images[:, 0, 0, 3].int()
    assert torch.equal(images[:, 0], images[:, 2])
    return ((left + right - 10) // 20).tolist(), (left < right).tolist()


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.repeat(np.array([0, 128 * 257, 65535, 200 * 257], dtype=np.uint16)[None], 4, 0)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert only(tmp_path, 1, 4)[0, 0].tolist() == [0, 128, 255, 200]
    assert only(tmp_path, 3, 4)[:, 2, 1].tolist() == [128, 128, 128]


def test_sixteen_bit_tiff_of_either_byte_order_and_turned(tmp_path):
    values = np.repeat(np.array([0, 65535], dtype=np.uint16)[None], 2, 0)
    exif = Image.Exif()
    exif[0x0112] = 2                                             # mirrored
    Image.fromarray(values).save(tmp_path / "a.tif", exif=exif)
    big = struct.pack(">2sHI", b"MM", 42, 8) + _tiff_directory(">", values.astype(">u2").tobytes())
    (tmp_path / "b.tif").write_bytes(big)
    images = opened(tmp_path, 1, 2)
    assert images.skipped == ()
    assert images.read([0])[0, 0, 0].tolist() == [255, 0]
    assert images.read([1])[0, 0, 0].tolist() == [0, 255]


def _tiff_directory(order, data):
    tags = [(256, 3, 2), (257, 3, 2), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1),
            (278, 3, 2), (279, 4, len(data))]
    body = struct.pack(order + "H", len(tags))
    for tag, kind, value in tags:
        packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        body += struct.pack(order + "HHI", tag, kind, 1) + packed
    return body + struct.pack(order + "I", 0) + data


@pytest.mark.parametrize(("values", "expected"), [([0.0, 0.5, 1.0, 0.25], [0, 128, 255, 64]),
                                                  ([0.0, 100.0, 300.0, float("nan")], [0, 100, 255, 0])])
def test_floating_point_images(tmp_path, values, expected):
    Image.fromarray(np.repeat(np.array(values, dtype=np.float32)[None], 4, 0)).save(tmp_path / "a.tif")
    assert only(tmp_path, 1, 4)[0, 0].tolist() == expected


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    assert near(only(tmp_path)[:, 4, 4], RED, slack=6)


def palette(tmp_path):
    image = halves(0, 1, mode="P")
    image.putpalette([*RED, *BLUE])
    image.save(tmp_path / "a.png", transparency=0)


def palette_with_alpha_bytes(tmp_path):
    image = halves(0, 1, mode="P")
    image.putpalette([*RED, *BLUE])
    image.save(tmp_path / "a.png", transparency=bytes([0, 255]))


def keyed_rgb(tmp_path):
    halves(RED, BLUE).save(tmp_path / "a.png", transparency=RED)


def rgba(tmp_path):
    halves((255, 0, 0, 0), (0, 0, 255, 255), mode="RGBA").save(tmp_path / "a.webp", lossless=True, exact=True)


@pytest.mark.parametrize("make", [palette, palette_with_alpha_bytes, keyed_rgb, rgba])
def test_alpha_of_every_kind_is_laid_over_white(tmp_path, make):
    make(tmp_path)
    pixels = only(tmp_path)
    assert near(pixels[:, 4, 0], (255, 255, 255))
    assert near(pixels[:, 4, 7], BLUE)
    kept = only(tmp_path, channels=4)
    assert kept[3, 4, 0] == 0
    assert kept[:, 4, 7].tolist() == [*BLUE, 255]


def test_half_transparent_grey(tmp_path):
    Image.new("LA", (8, 8), (0, 128)).save(tmp_path / "a.png")
    assert near(only(tmp_path)[:, 0, 0], (127, 127, 127), slack=1)
    assert near(only(tmp_path, channels=1)[:, 0, 0], (127,), slack=1)
    assert only(tmp_path, channels=4)[:, 0, 0].tolist() == [0, 0, 0, 128]


def test_transparent_pixels_do_not_bleed_colour_when_resized(tmp_path):
    halves((255, 0, 0, 0), (0, 0, 255, 255), (64, 64), "RGBA").save(tmp_path / "a.png")
    pixels = only(tmp_path, channels=4, resolution=6)
    seen = pixels[:3, :, :][:, pixels[3] > 8]
    assert int(seen[0].max()) <= 4                               # no red where anything is visible


def test_images_without_alpha_are_opaque(tmp_path):
    colour(tmp_path / "a.png")
    assert only(tmp_path, channels=4)[:, 0, 0].tolist() == [255, 0, 0, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_gives_every_channel_count(tmp_path, mode):
    Image.new("RGB", (8, 8), "white").convert(mode).save(tmp_path / "a.png")
    for channels in (1, 3, 4):
        pixels = only(tmp_path, channels)
        assert pixels.shape == (channels, 8, 8)
        assert pixels.dtype == torch.uint8
        assert int(pixels.min()) >= 254


def test_grey_weighs_colours_as_eyes_do(tmp_path):
    colour(tmp_path / "a.png", GREEN)
    assert 145 <= int(only(tmp_path, channels=1)[0, 0, 0]) <= 155


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_rotation_is_applied(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6                                             # shown turned by 90 degrees: left becomes top
    halves(RED, BLUE).save(tmp_path / f"a.{suffix}", exif=exif)
    pixels = only(tmp_path)
    assert near(pixels[:, 0, 4], RED, slack=12)
    assert near(pixels[:, 7, 4], BLUE, slack=12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_agrees_with_pillow(tmp_path, orientation):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = torch.from_numpy(np.array(ImageOps.exif_transpose(image))).permute(2, 0, 1)
    assert torch.equal(only(tmp_path), expected)


def test_damaged_exif_does_not_cost_the_image(tmp_path):
    """Orientation 6 beside a tag whose type is wrong: Pillow reads the block but cannot write it anew."""
    entries = struct.pack(">HHII", 0x0112, 3, 1, 6 << 16) + struct.pack(">HHI4s", 0x0120, 2, 2, b"2\0\0\0")
    halves(RED, BLUE).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + entries + bytes(4), quality=95)
    pixels = only(tmp_path)
    assert near(pixels[:, 0, 4], RED, slack=12)
    assert near(pixels[:, 7, 4], BLUE, slack=12)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("block", [b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0", b"no header at all"])
def test_unreadable_exif_does_not_cost_the_image(tmp_path, block, suffix):
    halves(RED, BLUE).save(tmp_path / f"a.{suffix}", exif=b"Exif\0\0" + block, quality=95)
    assert near(only(tmp_path)[:, 4, 0], RED, slack=12)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_first_frame_of_animations(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), fill) for fill in (RED, BLUE, GREEN)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], duration=50)
    assert near(only(tmp_path)[:, 4, 4], RED, slack=6)


def test_extreme_shapes(tmp_path):
    colour(tmp_path / "a.png", BLUE, (1, 1))
    wide = Image.new("RGB", (2000, 10), RED)
    wide.paste(BLUE, (995, 0, 1005, 10))                         # exactly the centre square
    wide.save(tmp_path / "b.png")
    wide.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "c.png")
    images = opened(tmp_path)
    assert images.skipped == ()
    expected = torch.tensor(BLUE, dtype=torch.uint8)[None, :, None, None].expand(3, 3, 8, 8)
    assert torch.equal(images.read([0, 1, 2]), expected)


def test_same_size_is_left_alone(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert torch.equal(only(tmp_path), torch.from_numpy(noise).permute(2, 0, 1))


def test_normalise_spans_minus_one_to_one():
    out = normalise(torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8))
    assert out.dtype == torch.float32
    assert torch.allclose(out, torch.tensor([[[[-1.0, 1.0, -0.6]]]]))


# --- bad files --------------------------------------------------------------------------------------------------------


def claims(path, width, height):
    """A PNG of one pixel whose header claims another size."""
    data = bytearray(colour(path, size=(1, 1)).read_bytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


@pytest.fixture
def mess(tmp_path):
    """One good image among files of every bad kind."""
    folder = tmp_path / "mess"
    good = colour(folder / "good.png", RED, (64, 64))
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not an image")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for kind in ("png", "jpg"):
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, {"jpg": "JPEG", "png": "PNG"}[kind])
        (folder / f"cut.{kind}").write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    (folder / "flipped.png").write_bytes(good.read_bytes()[:45] + b"\xff" * 20 + good.read_bytes()[65:])
    claims(folder / "bomb.png", 30_000, 30_000)
    (folder / "drawing.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "notes.txt").write_text("ignored, not even named")
    (folder / ".hidden.png").write_text("ignored")
    return folder


BAD = ["bomb.png", "cut.jpg", "cut.png", "drawing.png", "empty.png", "flipped.png", "gone.png", "loop.png", "pipe.png",
       "text.png"]


@pytest.mark.parametrize("workers", [0, 3])
def test_bad_files_are_named_and_the_rest_is_used(mess, caplog, workers):
    with caplog.at_level(logging.WARNING, logger="zoo"):
        images = opened(mess, workers=workers)
    assert [name for name, _ in images.skipped] == BAD
    assert all(reason and "\n" not in reason and "0x" not in reason for _, reason in images.skipped)
    reasons = dict(images.skipped)
    assert reasons["drawing.png"] == reasons["text.png"]         # Ghostscript was not asked
    assert near(images.read([0])[0, :, 4, 4], RED)
    (record,) = caplog.records
    line = record.getMessage()
    assert "10 files skipped, 1 images left" in line
    assert "7 more" in line
    assert [name for name in BAD if name in line] == BAD[:3]


def test_nothing_but_bad_files_is_one_line(mess):
    (mess / "good.png").unlink()
    with pytest.raises(DataError, match=r"can be read; 10 files failed, such as bomb\.png: too many pixels"):
        opened(mess)


def test_folders_without_images(tmp_path):
    with pytest.raises(DataError, match=r"is empty; put images in it \(\.png \.jpg"):
        opened(tmp_path)
    (tmp_path / "a.txt").touch()
    (tmp_path / "b.heic").touch()
    with pytest.raises(DataError, match=r"none of its 2 files ends in one of \.png \.jpg"):
        opened(tmp_path)


@contextmanager
def without_privileges():
    """Root may read everything: be nobody for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_unreadable_file_and_folder():
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        colour(folder / "good.png")
        colour(folder / "secret.png").chmod(0)
        colour(folder / "closed" / "a.png").parent.chmod(0)
        with without_privileges():
            images = opened(folder)
        assert images.skipped == (("closed", "Permission denied"), ("secret.png", "Permission denied"))
        (folder / "closed").chmod(0o700)


def test_folder_links_are_followed_and_loops_end(tmp_path):
    elsewhere = colour(tmp_path / "elsewhere" / "x.png", BLUE).parent
    root = colour(tmp_path / "root" / "cats" / "a.png").parents[1]
    (root / "dogs").symlink_to(elsewhere)
    (root / "cats" / "up").symlink_to(root)
    images = opened(root)
    assert images.classes == ("cats", "dogs")
    assert len(images) == 2


def test_names_that_are_not_utf8_or_not_printable(tmp_path, caplog):
    for name in (b"caf\xe9.png", b"line\nbreak.png"):
        shutil.copy(colour(tmp_path / "other" / "plain.png"), os.path.join(os.fsencode(tmp_path), name))
    with open(os.path.join(os.fsencode(tmp_path), b"bad\xff\n.png"), "wb"):
        pass
    images = opened(tmp_path)
    assert len(images) == 3
    assert images.skipped == (("bad\\udcff\\n.png", "not an image, or of a kind that is not read"),)
    assert len(images.fingerprint) == 64
    caplog.records[0].getMessage().encode("utf-8")


# --- classes ----------------------------------------------------------------------------------------------------------


def test_first_level_folders_are_classes_however_deep_the_images(tmp_path):
    for name in ("zebra/a.png", "ant/x/y/b.png", "ant/c.JPG"):
        colour(tmp_path / name)
    images = opened(tmp_path)
    assert images.classes == ("ant", "zebra")
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0, 0, 1]


def test_labels_stay_with_their_images_when_files_are_skipped(numbered):
    (numbered / "a" / "01.png").write_bytes(b"")
    (numbered / "c" / "08.png").write_bytes(b"")
    images = opened(numbered, resolution=4)
    drawn, _ = numbers(images.read(range(len(images))))
    assert drawn == [0, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    assert images.labels.tolist() == [number // 4 for number in drawn]


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["cats/a.png", "loose.png"], ["cats/a.png", "cats/b.png"]])
def test_flat_mixed_and_single_class_folders_have_no_labels(tmp_path, names):
    for name in names:
        colour(tmp_path / name)
    images = opened(tmp_path)
    assert (len(images), images.labels, images.classes) == (2, None, ())


def test_a_folder_around_everything_is_no_class(tmp_path):
    for name in ("pack/images/ant/a.png", "pack/images/bee/b.png"):
        colour(tmp_path / name)
    assert opened(tmp_path).classes == ("ant", "bee")


# --- zip --------------------------------------------------------------------------------------------------------------


def pack(folder, path, prefix=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(file, prefix + str(file.relative_to(folder)))
    return path


@pytest.mark.parametrize("prefix", ["", "outer/"])
@pytest.mark.parametrize("memory", [1 << 30, 0])
def test_zip_is_read_as_its_folder(numbered, tmp_path, prefix, memory):
    folder = opened(numbered, resolution=4)
    packed = opened(pack(numbered, tmp_path / "n.zip", prefix), resolution=4, memory=memory, workers=2)
    assert packed.classes == folder.classes == ("a", "b", "c")
    assert packed.labels.tolist() == folder.labels.tolist()
    assert torch.equal(packed.read(range(12)), folder.read(range(12)))
    assert (packed.fingerprint == folder.fingerprint) == (prefix == "")


def test_zip_made_by_another_system(tmp_path):
    data = colour(tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("cats\\a.png", data)
        archive.writestr("dogs/b.png", data)
        archive.writestr("__MACOSX/cats/._a.png", b"fork")
        archive.writestr("__MACOSX/cats/a.png", b"fork")
        archive.writestr("dogs/.DS_Store.png", b"hidden")
        archive.writestr("Thumbs.db", b"other")
    images = opened(tmp_path / "z.zip")
    assert (len(images), images.classes, images.skipped) == (2, ("cats", "dogs"), ())


def test_hostile_zip_entries_are_skipped(tmp_path):
    data = colour(tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("good.png", "huge.png", "locked.png", "torn.png"):
            archive.writestr(name, data)
        archive.getinfo("huge.png").file_size = 300 << 20
        archive.getinfo("locked.png").flag_bits |= 1
        archive.getinfo("torn.png").CRC ^= 1
    images = opened(tmp_path / "z.zip")
    assert len(images) == 1
    reasons = dict(images.skipped)
    assert set(reasons) == {"huge.png", "locked.png", "torn.png"}
    assert "300 MB" in reasons["huge.png"]
    assert reasons["locked.png"] == "encrypted"
    assert "CRC" in reasons["torn.png"]


def test_zip_that_grows_beyond_its_promise(tmp_path):
    """An entry that says 100 bytes and unpacks to 64 MB is cut at what it says."""
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", colour(tmp_path / "a.png").read_bytes())
        archive.writestr("liar.png", b"\x89PNG\r\n\x1a\n" + bytes(64 << 20))
        archive.getinfo("liar.png").file_size = 100
    images = opened(tmp_path / "z.zip")
    assert len(images) == 1
    assert [name for name, _ in images.skipped] == ["liar.png"]


def test_file_that_is_no_zip(tmp_path):
    path = colour(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"cannot be read as a zip"):
        opened(path)
    whole = pack(tmp_path, tmp_path / "z.zip").read_bytes()
    (tmp_path / "z.zip").write_bytes(whole[:-10])
    with pytest.raises(DataError, match=r"cannot be read as a zip"):
        opened(tmp_path / "z.zip")


# --- emoji and other names --------------------------------------------------------------------------------------------

COUNTS = {"activities": 85, "animals-nature": 159, "food-drink": 131, "objects": 264, "people-body": 386,
          "smileys-emotion": 169, "symbols": 224, "travel-places": 218}


def test_emoji_and_its_categories():
    images = opened("emoji", resolution=32)
    assert images.classes == tuple(sorted(COUNTS))
    assert Counter(images.classes[label] for label in images.labels) == COUNTS
    assert len(images) == sum(COUNTS.values()) == 1636


def test_emoji_without_category_and_emoji_of_it_share_all_out():
    smileys, rest = opened("emoji:smileys-emotion", resolution=32), opened("emoji:-smileys-emotion", resolution=32)
    assert (len(smileys), smileys.labels, smileys.classes) == (169, None, ())
    assert len(rest) == 1467
    assert rest.classes == tuple(sorted(set(COUNTS) - {"smileys-emotion"}))
    everything = opened("emoji", resolution=32)
    where = everything.labels == everything.classes.index("smileys-emotion")
    assert torch.equal(everything.read(np.flatnonzero(where)), smileys.read(range(169)))
    assert torch.equal(everything.read(np.flatnonzero(~where)), rest.read(range(1467)))


def test_emoji_category_lists():
    assert opened("emoji:food-drink,activities").classes == ("activities", "food-drink")
    assert len(opened("emoji:-objects, people-body")) == len(opened("emoji:-objects,-people-body")) == 1636 - 264 - 386


def test_emoji_tiles_are_drawings_on_white():
    images = opened("emoji", resolution=32).read(range(1636)).float()
    corners = images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float(corners.median()) == 255.0
    assert float(images.std(dim=(1, 2, 3)).min()) > 5            # no tile is blank
    assert float(images.std(dim=1).mean()) > 10                  # and they are coloured


def test_emoji_at_other_sizes():
    small, large = opened("emoji:activities", 1, 16), opened("emoji:activities", 4, 64)
    assert small.read([0]).shape == (1, 1, 16, 16)
    assert large.read([3]).shape == (1, 4, 64, 64)
    assert int(large.read([3])[:, 3].min()) == 255


def test_emoji_licence_is_in_the_package():
    folder = files("zoo.data") / "emoji"
    licence = (folder / "LICENSE").read_text()
    assert "Apache License" in licence
    assert "Noto Emoji" in licence
    assert "1,636" in (folder / "README.md").read_text()


def test_sheet_tool_lays_over_white_and_leaves_flags_out(tmp_path):
    """The tool that made the bundled sheet, on a package of five glyphs."""
    glyphs = [("one", "Food & Drink", 2, True), ("flag", "Flags", 1, True), ("tone", "Component", 1, True),
              ("two_2", "Activities", 1, True), ("missing", "Objects", 3, False)]
    entries = [{"short_name": name, "category": category, "sort_order": order, "unified": name, "image": f"{name}.png",
                "has_img_google": there} for name, category, order, there in glyphs]
    (tmp_path / "emoji.json").write_text(json.dumps(entries))
    (tmp_path / "img" / "google" / "64").mkdir(parents=True)
    for name, *_ in glyphs[:4]:
        halves((255, 0, 0, 0), (0, 0, 255, 255), (64, 64), "RGBA").save(tmp_path / "img/google/64" / f"{name}.png")
    tool = Path(__file__).parents[1] / "tools" / "make_emoji_sheet.py"
    subprocess.run([sys.executable, tool, tmp_path, tmp_path / "out"], check=True, capture_output=True)
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["tiles"] == [["two-2", "activities"], ["one", "food-drink"]]
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert (sheet.mode, sheet.size) == ("RGB", (index["columns"] * 32, 32))
        assert [sheet.getpixel((x, 16)) for x in (2, 30, 34, 62, 66)] == [(255, 255, 255), BLUE] * 2 + [(255, 255, 255)]


@pytest.mark.parametrize(("spec", "message"), [
    ("emoji:smiley-emotion", r"no category 'smiley-emotion'. Did you mean 'smileys-emotion'\? It has: activities,"),
    ("emoji:", r"no category ''"),
    ("emoji:-" + ",".join(COUNTS), r"leaves no category"),
    ("emojy", r"Did you mean 'emoji'\?"),
    ("hub:owner/dataset", r"no folder, zip or tar 'hub:owner/dataset'.* hf:OWNER/DATASET"),
    ("", r"no data given"),
    ("nul\0byte", r"no folder, zip or tar 'nul\\\\x00byte'"),
])
def test_wrong_names_are_one_line(spec, message):
    with pytest.raises(DataError, match=message) as caught:
        opened(spec)
    assert "\n" not in str(caught.value)


def test_missing_folder_suggests_its_neighbour(tmp_path):
    (tmp_path / "flowers").mkdir()
    with pytest.raises(DataError, match=r"Did you mean 'flowers'"):
        opened(str(tmp_path / "flower"))


def test_hub_data_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'genzoo\[data\]'"):
        opened("hf:owner/dataset")


def test_hub_data_set(numbered, tmp_path, monkeypatch):
    """`datasets` reads a local folder by the same call that reads the Hub."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    shutil.copytree(numbered, tmp_path / "owner" / "dataset")
    (tmp_path / "owner" / "dataset" / "b" / "05.png").write_bytes(b"torn")
    monkeypatch.chdir(tmp_path)
    images = opened("hf:owner/dataset", resolution=4)
    assert images.classes == ("a", "b", "c")
    drawn, _ = numbers(images.read(range(len(images))))
    assert sorted(drawn) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert images.labels.tolist() == [number // 4 for number in drawn]
    assert images.fingerprint == opened("hf:owner/dataset", resolution=8).fingerprint


def test_an_open_set_passes_when_it_fits(numbered):
    images = opened(numbered)
    assert opened(images) is images
    with pytest.raises(DataError, match=r"is open at 8x8 with 3 channels, but 16x16 with 3 is needed"):
        opened(images, resolution=16)
    with pytest.raises(DataError, match=r"with 3 channels, but 8x8 with 1 is needed"):
        opened(images, channels=1)


@pytest.mark.parametrize("settings", [{"channels": 2}, {"resolution": 0}, {"workers": -1}])
def test_impossible_settings(numbered, settings):
    with pytest.raises(ConfigError, match=r"channels are 1, 3 or 4"):
        opened(numbered, **settings)


# --- fingerprint ------------------------------------------------------------------------------------------------------


def test_fingerprint_belongs_to_the_files(numbered, tmp_path):
    first = opened(numbered).fingerprint
    moved = shutil.move(numbered, tmp_path / "moved")
    assert opened(moved, channels=1, resolution=16, memory=0).fingerprint == first
    changed = {first}
    one = Path(moved) / "a" / "00.png"
    content = one.read_bytes()
    one.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))     # same name, same size
    changed.add(opened(moved).fingerprint)
    one.write_bytes(content)
    one.rename(Path(moved) / "b" / "00.png")                     # another class
    changed.add(opened(moved).fingerprint)
    (Path(moved) / "b" / "00.png").unlink()
    changed.add(opened(moved).fingerprint)
    assert len(changed) == 4


def test_fingerprints_of_emoji_selections_differ():
    specs = ["emoji", "emoji:objects", "emoji:-objects"]
    assert len({opened(spec).fingerprint for spec in specs}) == 3
    assert opened("emoji").fingerprint == opened("emoji", resolution=16).fingerprint


# --- reading on demand ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 3])
def test_on_demand_reads_the_same(numbered, workers):
    ready, lazy = opened(numbered, resolution=4), opened(numbered, resolution=4, memory=0, workers=workers)
    assert (ready.in_memory, lazy.in_memory) == (True, False)
    for wanted in ([3, 3, 0], range(12), []):
        assert torch.equal(ready.read(wanted), lazy.read(wanted))
    for images in (ready, lazy):
        with pytest.raises(IndexError):
            images.read([12])
        with pytest.raises(IndexError):
            images.read([-1])


@pytest.mark.parametrize("workers", [0, 3])
def test_image_that_vanishes_is_replaced_by_the_next_with_its_label(numbered, caplog, workers):
    images = opened(numbered, resolution=4, memory=0, workers=workers)
    (numbered / "a" / "03.png").unlink()
    (numbered / "c" / "11.png").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING, logger="zoo"):
        for _ in range(2):
            pixels, labels = images.rows([2, 3, 11, 3])
            assert numbers(pixels)[0] == [2, 4, 0, 4]
            assert labels.tolist() == [0, 1, 0, 1]
    assert len(caplog.records) == 2                              # each named once
    assert [name for name, _ in images.skipped] == ["a/03.png", "c/11.png"]


def test_data_that_vanishes_altogether_ends_the_batches(numbered):
    endless = batches(opened(numbered, memory=0, workers=2), batch=4, seed=0)
    next(endless)
    shutil.rmtree(numbered)
    with pytest.raises(DataError, match=r"no image in .* can be read"):
        list(endless)


def test_a_stream_that_is_dropped_reads_no_more(numbered):
    images, before = opened(numbered, memory=0, workers=0), set(threading.enumerate())
    for _ in range(20):
        endless = batches(images, batch=12, seed=0)
        next(endless)
        assert [thread.name for thread in set(threading.enumerate()) - before] == ["zoo-prefetch_0"]
        del endless
        assert set(threading.enumerate()) <= before


# --- batches ----------------------------------------------------------------------------------------------------------


def stream(images, steps, **options):
    return list(islice(batches(images, **{"batch": 4, "seed": 7, **options}), steps))


def flat(rows):
    pixels, labels = torch.cat([images for images, _ in rows]), torch.cat([labels for _, labels in rows])
    drawn, mirrored = numbers(pixels)
    assert labels.tolist() == [number // 4 for number in drawn]
    return drawn, mirrored


@pytest.fixture
def images(numbered) -> ImageSet:
    return opened(numbered, resolution=4)


def test_every_epoch_shows_every_image_once_in_its_own_order(images):
    drawn, mirrored = flat(stream(images, 9))
    epochs = [drawn[first : first + 12] for first in (0, 12, 24)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert not any(mirrored)


def test_order_is_fixed_for_ever(images):
    """Runs of an older version go on with the same images: these numbers may not change."""
    drawn, mirrored = flat(stream(images, 3, mirror=True))
    assert drawn == [1, 0, 8, 10, 5, 11, 3, 2, 9, 7, 6, 4]
    assert "".join(str(int(flipped)) for flipped in mirrored) == "001110100001"


def test_seed_decides(images):
    assert flat(stream(images, 3)) == flat(stream(images, 3))
    assert flat(stream(images, 3))[0] != flat(stream(images, 3, seed=8))[0]


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("start", [1, 5])
def test_start_goes_on_where_a_run_stopped(images, start, mirror):
    whole, rest = stream(images, 8, mirror=mirror), stream(images, 8 - start, start=start, mirror=mirror)
    assert flat(whole[start:]) == flat(rest)


def test_order_does_not_depend_on_the_batch(images):
    assert flat(stream(images, 12, batch=2, mirror=True)) == flat(stream(images, 1, batch=24, mirror=True))


@pytest.mark.parametrize("memory", [1 << 30, 0])
@pytest.mark.parametrize("shares", [2, 3])
def test_shares_interleave_to_the_whole_batch(numbered, shares, memory):
    images = opened(numbered, resolution=4, memory=memory)
    whole = stream(images, 5, batch=6, mirror=True)
    parts = [stream(images, 5, batch=6, mirror=True, share=share, shares=shares) for share in range(shares)]
    for step, (pixels, labels) in enumerate(whole):
        for share in range(shares):
            assert torch.equal(parts[share][step][0], pixels[share::shares])
            assert torch.equal(parts[share][step][1], labels[share::shares])


def test_set_smaller_than_a_batch_wraps_into_the_next_epochs(images):
    drawn, _ = flat(stream(images, 1, batch=30))
    assert [sorted(drawn[:12]), sorted(drawn[12:24])] == [list(range(12))] * 2
    assert len(set(drawn[24:])) == 6


def test_one_image_fills_any_batch(tmp_path):
    colour(tmp_path / "a.png")
    (pixels, labels), *_ = stream(opened(tmp_path), 2, batch=32, shares=2, share=1)
    assert pixels.shape == (16, 3, 8, 8)
    assert labels is None


def test_mirroring_flips_half_and_anew_each_epoch(images):
    drawn, mirrored = flat(stream(images, 300, mirror=True))
    assert 0.45 < np.mean(mirrored) < 0.55
    per_image = [np.mean([m for d, m in zip(drawn, mirrored) if d == number]) for number in range(12)]
    assert min(per_image) > 0.25
    assert max(per_image) < 0.75


def test_batches_do_not_hand_out_the_set_itself(images):
    first, _ = next(batches(images, batch=12, seed=0))
    first.zero_()
    assert int(images.read(range(12)).max()) > 0


def test_on_demand_batches_equal_those_from_memory(numbered):
    ready, lazy = opened(numbered, resolution=4), opened(numbered, resolution=4, memory=0, workers=2)
    assert flat(stream(ready, 7, mirror=True)) == flat(stream(lazy, 7, mirror=True))


@pytest.mark.parametrize("options", [{"shares": 3}, {"batch": 0}, {"shares": 2, "share": 2}, {"start": -1}])
def test_impossible_division_is_refused_at_once(images, options):
    with pytest.raises(ConfigError) as caught:
        batches(images, **{"batch": 4, "seed": 0, **options})
    assert "\n" not in str(caught.value)
