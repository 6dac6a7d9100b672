"""zoo.diagnose and `zoo doctor`: every planted fault is found, and a clean set has none."""

import io
import json
import os
import shlex
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import zoo
from zoo.cli import main
from zoo.errors import ConfigError, DataError, UnknownName

N = 60                   # images of a clean set: more than the fewest, and few enough that one fault is seen


def picture(number, size=(48, 48), mode="RGB"):
    """A smooth random picture, another one for each number."""
    coarse = np.random.default_rng(number).integers(50, 206, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def fill(folder, count=N, first=0, **options):
    for number in range(first, first + count):
        save(picture(number, **options), folder / f"{number:03}.png")
    return folder


@pytest.fixture
def clean(tmp_path):
    return fill(tmp_path / "clean")


def found(diagnosis, kind):
    """The one finding of a kind."""
    matching = [each for each in diagnosis.findings if each.kind == kind]
    assert len(matching) == 1, [each.kind for each in diagnosis.findings]
    return matching[0]


def kinds(diagnosis):
    return {each.kind for each in diagnosis.findings}


def value(diagnosis, setting):
    return next(each.value for each in diagnosis.advice if each.setting == setting)


# A clean set.


def test_a_clean_set_has_no_finding(clean):
    diagnosis = zoo.diagnose(clean)
    assert diagnosis.findings == ()
    assert diagnosis.facts["images"] == N
    assert diagnosis.facts["formats"] == {"PNG": N}
    assert diagnosis.facts["colours"] == {"RGB": N}
    assert diagnosis.facts["sizes"]["median"] == [48, 48]
    assert diagnosis.facts["sizes"]["shorter_sides"] == {"32-63": N}
    assert value(diagnosis, "resolution") == "32"


def test_clean_classes_have_no_finding(tmp_path):
    for number, name in enumerate("abc"):
        fill(tmp_path / name, 20, first=100 * number)
    diagnosis = zoo.diagnose(tmp_path)
    assert diagnosis.findings == ()
    assert diagnosis.facts["classes"] == {"a": 20, "b": 20, "c": 20}
    assert value(diagnosis, "num_classes") == "3"


def test_a_zip_is_as_good_as_its_folder(clean, tmp_path):
    with zipfile.ZipFile(tmp_path / "clean.zip", "w") as archive:
        for path in clean.iterdir():
            archive.write(path, path.name)
    in_folder, in_zip = zoo.diagnose(clean), zoo.diagnose(tmp_path / "clean.zip")
    assert in_zip.facts == in_folder.facts
    assert in_zip.findings == ()


def test_the_bundled_emoji_can_be_trained_on():
    diagnosis = zoo.diagnose("emoji")
    assert diagnosis.problems == ()
    assert kinds(diagnosis) == {"copies", "near copies"}
    assert "man-man-boy = family" in found(diagnosis, "copies").images


# Damage.


def test_broken_files_are_named_with_the_reason(clean):
    whole = (clean / "000.png").read_bytes()
    (clean / "empty.png").write_bytes(b"")
    (clean / "words.jpg").write_text("no image")
    (clean / "torn.png").write_bytes(whole[: len(whole) // 2])
    os.symlink("nowhere.png", clean / "link.png")
    broken = found(zoo.diagnose(clean), "broken")
    assert broken.images == ("empty.png", "link.png", "torn.png", "words.jpg")
    assert "4 of 64 files cannot be read" in broken.what
    assert "empty.png (not an image" in broken.what
    assert broken.problem


def test_one_broken_file_of_many_is_no_problem(clean):
    (clean / "empty.png").write_bytes(b"")
    assert not found(zoo.diagnose(clean), "broken").problem


def test_a_set_of_broken_files_is_diagnosed(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    diagnosis = zoo.diagnose(tmp_path)
    assert {each.kind for each in diagnosis.problems} == {"broken", "few"}
    assert diagnosis.command == ""
    assert "cannot be read" in str(diagnosis)
    json.dumps(diagnosis.to_dict(), allow_nan=False)


def test_too_few_images_are_a_problem(tmp_path):
    assert found(zoo.diagnose(fill(tmp_path, 20)), "few").problem


# Copies.


def test_exact_copies_are_found_whatever_the_format(clean):
    with Image.open(clean / "007.png") as image:
        image.save(clean / "x.bmp")
        image.save(clean / "y.webp", lossless=True)
    copies = found(zoo.diagnose(clean), "copies")
    assert copies.images == ("007.png = x.bmp", "007.png = y.webp")
    assert not copies.problem


def test_many_copies_are_a_problem(clean):
    for number in range(10):
        save(picture(number), clean / "again" / f"{number}.png")
    assert found(zoo.diagnose(clean), "copies").problem


@pytest.mark.parametrize(
    "change",
    [
        lambda image: resaved(image, "jpeg", quality=75),
        lambda image: resaved(image, "webp", quality=75),
        lambda image: image.resize((96, 96), Image.Resampling.BICUBIC),
        lambda image: image.resize((40, 40), Image.Resampling.LANCZOS),
        lambda image: ImageEnhance.Brightness(image).enhance(0.95),
        lambda image: ImageEnhance.Contrast(image).enhance(0.9),
        lambda image: image.quantize(256).convert("RGB"),
    ],
    ids=["jpeg", "webp", "doubled", "smaller", "darker", "softer", "palette"],
)
def test_near_copies_are_found(clean, change):
    for number in (3, 30):
        save(change(picture(number)), clean / "z" / f"{number}.png")
    assert found(zoo.diagnose(clean), "near copies").images == ("003.png ~ z/3.png", "030.png ~ z/30.png")


def resaved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return Image.open(file).convert("RGB")


def test_different_pictures_of_one_outline_are_no_copies(clean):
    """They share a perceptual hash; what tells them apart is the closer look."""
    for number, colour in enumerate(["red", "lime", "blue", "yellow", "cyan", "magenta", "black", "orange", "purple"]):
        image = Image.new("RGB", (48, 48), "white")
        image.paste(colour, (12, 12, 36, 36))
        save(image, clean / "square" / f"{number}.png")
    assert zoo.diagnose(clean).findings == ()


# Classes and splits.


def test_small_unbalanced_and_hollow_classes_are_found(tmp_path):
    for number, name in enumerate(("large", "usual", "other", "common")):
        fill(tmp_path / name, 245, first=2000 + 300 * number, size=(16, 16))
    fill(tmp_path / "rare", 11, first=900, size=(16, 16))
    fill(tmp_path / "tiny", 3, first=950, size=(16, 16))
    for number in range(13):
        save(picture(999, size=(16, 16)), tmp_path / "hollow" / f"{number}.png")
    diagnosis = zoo.diagnose(tmp_path, resolution=16)
    assert found(diagnosis, "small class").images == ("tiny (3)",)
    assert found(diagnosis, "imbalance").images == ("rare (11)",)
    assert found(diagnosis, "copied class").images == ("hollow (13)",)
    assert {"small class", "imbalance", "copied class"} <= {each.kind for each in diagnosis.problems}


def test_one_picture_under_two_classes_is_found(tmp_path):
    fill(tmp_path / "a", 40)
    fill(tmp_path / "b", 40, first=100)
    save(picture(5), tmp_path / "b" / "x.png")
    assert found(zoo.diagnose(tmp_path), "two classes").images == ("a/005.png = b/x.png",)


def test_train_and_test_folders_are_no_classes(tmp_path):
    for part, first in (("train", 0), ("test", 200)):
        fill(tmp_path / part / "a", 30, first)
        fill(tmp_path / part / "b", 30, first + 100)
    diagnosis = zoo.diagnose(tmp_path)
    assert kinds(diagnosis) == {"split folders"}
    assert "train, test" in found(diagnosis, "split folders").what

    save(picture(4), tmp_path / "test" / "a" / "x.png")
    save(resaved(picture(105), "jpeg", quality=80), tmp_path / "test" / "b" / "y.png")
    leaking = zoo.diagnose(tmp_path)
    assert found(leaking, "leak").images == ("test/a/x.png = train/a/004.png",)
    assert found(leaking, "near leak").images == ("test/b/y.png ~ train/b/105.png",)
    assert found(leaking, "leak").problem


def test_a_folder_called_train_alone_is_no_split(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "car", first=100)
    assert zoo.diagnose(tmp_path).findings == ()


def test_images_that_stand_in_another_set_are_found(clean, tmp_path):
    other = fill(tmp_path / "other", first=500)
    assert zoo.diagnose(clean, against=other).findings == ()
    save(picture(1), other / "x.png")
    save(resaved(picture(2), "jpeg", quality=80), other / "y.png")
    diagnosis = zoo.diagnose(clean, against=other)
    assert found(diagnosis, "leak").images == ("001.png = x.png",)
    assert found(diagnosis, "near leak").images == ("002.png ~ y.png",)
    assert {each.kind for each in diagnosis.problems} == {"leak"}


# Kinds of images.


def test_what_images_are_is_found(clean):
    frames = [picture(900), picture(901)]
    frames[0].save(clean / "moving.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6
    save(picture(902, size=(60, 40)), clean / "turned.jpg", exif=exif)
    save(picture(903).convert("CMYK"), clean / "print.jpg")
    deep = np.random.default_rng(0).integers(0, 65536, (40, 40), dtype=np.uint16)
    Image.fromarray(deep).save(clean / "deep.png")
    save(picture(904, size=(300, 40)), clean / "long.png")
    glass = picture(905, mode="RGBA")
    glass.putalpha(100)
    save(glass, clean / "glass.png")
    save(Image.new("RGB", (40, 40), "teal"), clean / "flat.png")
    diagnosis = zoo.diagnose(clean)
    expected = {
        "moving": "moving.gif", "turned": "turned.jpg", "cmyk": "print.jpg", "deep": "deep.png", "long": "long.png",
        "alpha": "glass.png", "flat": "flat.png",
    }  # fmt: skip
    assert {each.kind: each.images for each in diagnosis.findings} == {key: (name,) for key, name in expected.items()}
    assert diagnosis.problems == ()
    assert diagnosis.facts["colours"] == {"RGB": N + 3, "palette": 1, "CMYK": 1, "16-bit grey": 1, "RGBA": 1}
    assert diagnosis.facts["sizes"]["largest"] == [300, 40]


def test_an_opaque_alpha_channel_is_no_transparency(clean):
    save(picture(900, mode="RGBA"), clean / "opaque.png")
    assert zoo.diagnose(clean).findings == ()


def test_sixteen_bits_of_colour_are_seen(clean):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    values = np.random.default_rng(1).integers(0, 65536, (40, 40, 3), dtype=np.uint16).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (clean / "deep.png").write_bytes(whole)
    assert found(zoo.diagnose(clean), "deep").images == ("deep.png",)
    assert zoo.diagnose(clean).facts["colours"]["16-bit RGB"] == 1


def test_a_grey_set_stored_in_colour_is_found(tmp_path):
    for number in range(N):
        save(picture(number, mode="L").convert("RGB"), tmp_path / f"{number}.png")
    diagnosis = zoo.diagnose(tmp_path)
    assert "60 of them stored in colour" in found(diagnosis, "grey").what
    assert value(diagnosis, "channels") == "1"
    assert "--set channels=1" in diagnosis.command


def test_images_too_small_for_the_resolution_are_found(clean):
    assert found(zoo.diagnose(clean, resolution=64), "small").problem
    assert zoo.diagnose(clean, resolution=48).findings == ()


# Suggestions.


def options(command):
    words = shlex.split(command)
    assert words[0] == "zoo"
    return words[1:]


def test_the_suggested_command_runs(tmp_path, monkeypatch):
    """As it stands, but for a tiny model and a short training."""
    monkeypatch.chdir(tmp_path)
    folder = fill(tmp_path / "my pictures", mode="L")
    arguments = options(zoo.diagnose(folder, arch="r3gan").command)
    assert arguments[:3] == ["train", "r3gan", str(folder)]
    assert "channels=1" in arguments
    arguments[arguments.index("--kimg") + 1] = "0.008"
    tiny = ["latent=8", "channel_base=64", "channel_max=8", "blocks=1", "group_width=4", "embedding=4"]
    assert main(arguments + [word for setting in tiny for word in ("--set", setting)]) == 0
    assert (tmp_path / "runs/first/model/model.safetensors").is_file()


@pytest.mark.parametrize("name", ["stylegan", "dcgan", "biggan", "vae.emoji32", "r3gan", "stylegan3"])
def test_suggested_settings_exist(clean, tmp_path, name, capsys):
    """Every word of the command is understood: what stops it is the run directory, which is a file."""
    (tmp_path / "taken").write_text("")
    arguments = options(zoo.diagnose(clean, arch=name).command)
    arguments[arguments.index("--out") + 1] = str(tmp_path / "taken")
    arguments[arguments.index("--kimg") + 1] = "0.001"
    assert main(arguments) == 2
    assert "taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "kimg", "batch", "augmented"),
    [(60, "8", "8", True), (400, "40", "the recipe's", True)],
)
def test_suggestions_go_by_the_number_of_images(tmp_path, count, kimg, batch, augmented):
    diagnosis = zoo.diagnose(fill(tmp_path, count, size=(32, 32)))
    assert (value(diagnosis, "kimg"), value(diagnosis, "batch")) == (kimg, batch)
    assert (value(diagnosis, "augment") != "none") == augmented
    assert value(diagnosis, "mirror") == "true or false"
    assert options(diagnosis.command)[:2] == ["finetune", "stylegan"]


def test_suggestions_are_for_the_named_weights(tmp_path):
    folder = fill(tmp_path, size=(64, 64))
    assert value(zoo.diagnose(folder, arch="stylegan"), "resolution") == "64"
    assert "--set resolution=64" in zoo.diagnose(folder, arch="dcgan").command
    assert zoo.diagnose(folder, arch="r3gan").command.startswith("zoo train r3gan ")


def test_what_was_given_stays_as_it_is(clean):
    before = {path.name: path.read_bytes() for path in clean.iterdir()}
    zoo.diagnose(clean, sheet=clean.parent / "sheet.png")
    assert {path.name: path.read_bytes() for path in clean.iterdir()} == before


# The contact sheet.


def test_the_sheet_shows_images_and_pairs(clean, tmp_path):
    save(picture(7), clean / "x.png")
    zoo.diagnose(clean, sheet=tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as image:
        sheet = image.convert("RGB")
    pixels = np.asarray(sheet).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 1000
    zoo.diagnose(clean, sheet=tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "new" / "sheet.png").read_bytes()
    zoo.diagnose(clean, sheet=tmp_path / "other.png", seed=1)
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "again.png").read_bytes()


def test_a_sheet_of_grey_images_and_strange_names(tmp_path):
    for number in range(N):
        save(picture(number, mode="L"), tmp_path / "set" / f"{number} \N{SNOWMAN} of a very long name indeed.png")
    zoo.diagnose(tmp_path / "set", sheet=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 500


@pytest.mark.parametrize("name", ["sheet.words", "", "folder"])
def test_an_impossible_sheet_is_refused_before_the_work(clean, tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError):
        zoo.diagnose(clean, sheet=tmp_path / name)


# Hostile sets.


def test_hostile_files_end_as_findings(clean):
    save(Image.new("RGB", (20000, 10), "red"), clean / "wide.png")
    save(Image.new("1", (14000, 14000)), clean / "bomb.png")           # 196 million pixels in 25 kB
    os.symlink(clean, clean / "loop")
    os.symlink("self.png", clean / "self.png")
    os.mkfifo(clean / "pipe.png")
    (clean / os.fsdecode(b"caf\xe9.png")).write_bytes(b"junk")
    (clean / "esc\x1b[2J.png").write_bytes(b"junk")
    (clean / "locked.png").mkdir()
    diagnosis = zoo.diagnose(clean)
    broken = found(diagnosis, "broken")
    assert len(broken.images) == 5
    assert all(name.isprintable() for name in broken.images)
    assert "bomb.png" in broken.images
    assert found(diagnosis, "long").images == ("wide.png",)
    assert diagnosis.facts["images"] == N + 1
    json.dumps(diagnosis.to_dict()).encode("utf-8")


def test_a_zip_bomb_is_refused_by_name(clean, tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in clean.iterdir():
            archive.write(path, path.name)
        with archive.open("bomb.png", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(1 << 20))
    diagnosis = zoo.diagnose(tmp_path / "bomb.zip")
    assert found(diagnosis, "broken").images == ("bomb.png",)
    assert diagnosis.facts["images"] == N


@pytest.mark.filterwarnings("ignore::UserWarning")      # Pillow's, about what it reads
def test_random_damage_never_raises(clean):
    chance = np.random.default_rng(0)
    names = []
    for number, kind in enumerate(["png", "jpeg", "gif", "webp", "tiff", "bmp"] * 20):
        file = io.BytesIO()
        picture(number + 1000, size=(16, 16)).save(file, kind)
        data = bytearray(file.getvalue())
        for place in chance.integers(0, len(data), 8):
            data[place] = chance.integers(0, 256)
        names.append(f"damaged{number}.{kind}")
        (clean / names[-1]).write_bytes(bytes(data[: chance.integers(1, len(data) + 1)]))
    diagnosis = zoo.diagnose(clean)
    assert diagnosis.facts["images"] + diagnosis.facts["unreadable"] == N + len(names)


# Mistakes.


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"arch": "stylgan"}, UnknownName),
        ({"arch": "stylegan.nothing"}, UnknownName),
        ({"resolution": 0}, ConfigError),
        ({"resolution": "64"}, ConfigError),
        ({"workers": 0}, ConfigError),
        ({"seed": None}, ConfigError),
        ({"against": "nowhere"}, DataError),
    ],
    ids=str,
)
def test_impossible_arguments_are_refused(clean, options, error):
    with pytest.raises(error) as caught:
        zoo.diagnose(clean, **options)
    assert "\n" not in str(caught.value)


# The command.


def run(*arguments, **options):
    command = [sys.executable, "-m", "zoo", "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_the_command_tells_problems_first_and_exits_with_1(tmp_path, capsys):
    folder = fill(tmp_path / "few", 12)
    save(Image.new("RGB", (40, 40), "teal"), folder / "flat.png")
    (folder / "torn.gif").write_bytes(b"GIF89a")
    assert main(["doctor", str(folder), "--sheet", str(tmp_path / "sheet.png")]) == 1
    lines = capsys.readouterr().out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(str(folder)))
    marks = [line.split()[0] for line in lines[start + 1 :] if line.startswith(("PROBLEM", "note"))]
    assert marks == sorted(marks)
    assert marks.count("PROBLEM") == 3
    assert lines[-1] == "not ready to be trained on: broken, few, flat"
    assert any(line.strip().startswith("zoo finetune stylegan") for line in lines)
    assert (tmp_path / "sheet.png").is_file()


def test_the_command_exits_with_0_when_nothing_is_wrong(clean, capsys):
    assert main(["doctor", str(clean)]) == 0
    assert f"{clean}: 60 images, no problem" in capsys.readouterr().out


def test_json_is_one_document(clean, tmp_path):
    save(picture(1), tmp_path / "other" / "x.png")
    done = run(clean, "--json", "--against", tmp_path / "other")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert (told["ok"], told["facts"]["images"]) == (False, N)
    assert [each["kind"] for each in told["findings"]] == ["leak"]
    assert told["command"].startswith("zoo finetune")


@pytest.mark.parametrize(
    "arguments", [["nowhere"], ["emoji", "--arch", "nothing"], ["emoji", "--sheet", "x.words"], ["--sheet", "x.png"]]
)
def test_a_mistake_is_one_line_and_2(arguments, capsys):
    assert main(["doctor", *arguments]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.count("\n") == 1


def test_without_data_the_installation_is_told(monkeypatch, tmp_path):
    done = run("--json", env={**os.environ, "ZOO_HOME": str(tmp_path / "home")})
    told = json.loads(done.stdout)
    assert done.returncode == (0 if told["ok"] else 1)
    assert {"python", "torch", "accelerate", "huggingface_hub"} <= set(told["versions"])
    assert told["devices"][-1]["name"] == "cpu"
    assert all(device["memory"] > 0 for device in told["devices"])
    assert told["home"] == str(tmp_path / "home")
    assert {"dcgan", "stylegan", "biggan", "vae"} <= {each["name"] for each in told["plugins"]}
    assert not (tmp_path / "home").exists()
