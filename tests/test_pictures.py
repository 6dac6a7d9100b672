"""Pictures by which people judge a model: what stands where in them, and what `zoo show` makes of a command."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.cli import main
from zoo.cli.show import KINDS, MOVING
from zoo.data import normalise, open_images
from zoo.errors import ConfigError, EvaluationError, Unsupported, WeightsError
from zoo.images import to_bytes
from zoo.metrics.names import extractor
from zoo.pictures import (
    class_grid,
    interpolation,
    interpolation_strip,
    neighbour_sheet,
    real_and_fake,
    sample_grid,
    save_animation,
    truncation_sweep,
)
from zoo.pictures.animation import animated

ARCHITECTURES = ("dcgan", "stylegan", "biggan", "vae")
SET = "emoji:smileys-emotion"
ZOOM = 3              # of 32 pixels
STEP = 32 * ZOOM + 2


@pytest.fixture(scope="module")
def model():
    """Return a function that loads a bundled model once."""
    loaded = {}
    return lambda name: loaded.get(name) or loaded.setdefault(name, zoo.load(name))


@pytest.fixture(scope="module")
def smileys():
    return open_images(SET, resolution=32, channels=3)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))


def tile(picture: Image.Image, left: int, top: int) -> torch.Tensor:
    """Return the 32x32 image whose corner is there, uint8 [3, 32, 32], after checking that it is drawn by squares."""
    drawn = np.asarray(picture)[top : top + 32 * ZOOM, left : left + 32 * ZOOM]
    small = drawn[::ZOOM, ::ZOOM]
    assert (drawn == small.repeat(ZOOM, 0).repeat(ZOOM, 1)).all()
    return torch.from_numpy(small.copy()).permute(2, 0, 1)


def tiles(picture: Image.Image, rows: int, columns: int, *, top: int = 2, under: int = 0, apart: int = 0) -> list:
    """Return the images of each row; they end at the right edge, and what is written stands left of them.

    `apart` is how much wider the gap after the first column is.
    """
    across = [picture.width - STEP * (columns - column) for column in range(columns)]
    if apart:
        across[0] -= apart
    return [[tile(picture, left, top + row * (STEP + under)) for left in across] for row in range(rows)]


# Truncation.


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_sweep_shows_the_samples_of_each_psi_under_each_other(name, model):
    psis = (0.25, 1.0)
    picture = truncation_sweep(model(name), psis, n=3, seed=5)
    assert picture.size == (picture.width, 2 * STEP + 2)
    labels = model(name).each_class(3)
    shown = tiles(picture, 2, 3)
    assert torch.equal(torch.stack(shown[1]), to_bytes(model(name).sample(3, seed=5, psi=1.0, labels=labels)))
    # Of the same latents, an image at 0.9 is nearer to its own at 1 than to any other.
    near = torch.stack(tiles(truncation_sweep(model(name), (0.9,), n=3, seed=5), 1, 3)[0])
    difference = (near[:, None].float() - torch.stack(shown[1]).float()).abs().mean((2, 3, 4))
    assert difference.argmin(1).tolist() == [0, 1, 2]


def test_a_truncation_that_draws_anew_keeps_the_places_in_its_distribution(model):
    from zoo.pictures.samples import latents

    whole = latents(model("biggan"), 64, 0, 1.0)
    assert torch.equal(whole, latents(model("biggan"), 64, 0, 1.0))
    half = latents(model("biggan"), 64, 0, 0.5)
    assert torch.equal(whole.flatten().argsort(), half.flatten().argsort())
    assert float(half.abs().max()) <= 1.0                                      # 0.5 times the bound of 2
    assert float(half.std()) == pytest.approx(0.5 * 0.88, abs=0.02)            # of a normal within two deviations


def test_the_psi_is_written_beside_its_row(model):
    picture = truncation_sweep(model("dcgan"), (0.5, 1.0), n=2)
    margin = np.asarray(picture)[:, : picture.width - 2 * STEP]
    for row in range(2):
        assert (margin[row * STEP + 2 : (row + 1) * STEP] < 128).any()
    assert (margin[:, -4:] == 255).all()                                       # nothing is written into the images


# Interpolation.


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_interpolation_begins_and_ends_with_the_two_latents(name, model):
    network = model(name)
    frames = interpolation(network, n=2, steps=4, seed=3, psi=0.8)
    assert frames.shape == (2, 4, 3, 32, 32)
    labels = network.each_class(2)
    drawn = network.sample(2, seed=3, psi=1.0, labels=labels)
    assert torch.equal(interpolation(network, n=2, steps=3, seed=3)[:, 0], drawn)
    steps = (frames[:, 1:] - frames[:, :-1]).abs().mean((2, 3, 4))
    assert (steps < (frames[:, -1] - frames[:, 0]).abs().mean((1, 2, 3))[:, None]).all()


def test_latents_stay_as_long_on_the_way():
    from zoo.pictures.interpolation import between

    start, end = (torch.randn(3, 512, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    way = between(start, end, 5, spherical=True)
    assert torch.equal(way[0], start)
    assert torch.equal(way[-1], end)
    assert way.norm(dim=2) == pytest.approx(512**0.5, rel=0.1)
    angles = torch.nn.functional.cosine_similarity(way[1:], way[:-1], dim=2).acos()
    assert float(angles.std(0).max()) < 0.01
    straight = between(start, end, 5, spherical=False)
    assert torch.allclose(straight[2], (start + end) / 2)
    assert torch.equal(between(0 * start, 0 * end, 3, spherical=True), torch.zeros(3, 3, 512))


@pytest.mark.parametrize("spherical", [True, False])
def test_a_loop_closes(spherical):
    from zoo.pictures.interpolation import around

    start, over = (torch.randn(2, 64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    way = around(start, over, 24, spherical=spherical)
    assert torch.equal(way[0], start)
    assert not around(0 * start, 0 * over, 4, spherical=spherical).any()      # as at psi = 0
    steps = (way.roll(-1, 0) - way).norm(dim=2)      # the last one leads back to the first
    assert float(steps.max()) < 0.3 * float(start.norm(dim=1).max())
    passed = way[6] if spherical else way[12]
    assert float(torch.nn.functional.cosine_similarity(passed, over).min()) > 0.95


def test_latents_that_are_not_normal_are_interpolated_on_a_line(model, monkeypatch):
    network = zoo.load("dcgan")
    monkeypatch.setattr(network, "latent", lambda n, noise, psi=1.0: noise.uniform(n, network.latent_size))
    seen = []
    monkeypatch.setattr(network, "generate", lambda z, labels, **more: seen.append(z) or torch.zeros(len(z), 3, 32, 32))
    interpolation(network, n=2, steps=5)
    assert torch.allclose(torch.stack(seen)[2], (seen[0] + seen[4]) / 2)
    assert float(torch.stack(seen).max()) <= 1.0


def test_what_else_is_random_stays_along_a_row(model):
    """StyleGAN draws noise for each image: between equal latents nothing may move."""
    network = model("stylegan")
    z = network.latent(1, zoo.model.Noise(0)).expand(2, -1)
    drawn = [network.sample(z=z[:1], seed=4) for _ in range(2)]
    assert torch.equal(*drawn)
    assert not torch.equal(*network.sample(z=z, seed=4).split(1))              # within a call it does
    frames = interpolation(network, n=2, steps=2, psi=0.0)                     # all w are the mean
    assert torch.equal(frames[:, 0], frames[:, 1])
    assert not torch.equal(frames[0], frames[1])


def test_the_class_stays_along_a_row(model):
    network = model("biggan")
    frames = interpolation(network, n=2, steps=3, labels=[2, 5], seed=1)
    assert torch.equal(frames[:, 0], network.sample(2, seed=1, labels=[2, 5]))
    others = interpolation(network, n=2, steps=3, labels=[2, 6], seed=1)
    assert torch.allclose(frames[0], others[0], atol=1e-5)
    assert not torch.allclose(frames[1], others[1], atol=0.1)


def test_a_strip_holds_the_images_in_order(model):
    picture = interpolation_strip(model("vae"), n=2, steps=3)
    assert picture.size == (3 * STEP + 2, 2 * STEP + 2)
    shown = torch.stack([torch.stack(row) for row in tiles(picture, 2, 3)])
    assert torch.equal(shown, to_bytes(interpolation(model("vae"), n=2, steps=3)))


# Animations.


def colours(count: int, *shape: int) -> torch.Tensor:
    """Return frames [count, *shape, 3, 20, 21] that differ, plain ones."""
    return torch.linspace(-1, 1, count).reshape(-1, *[1] * (len(shape) + 3)).expand(count, *shape, 3, 20, 21)


@pytest.mark.parametrize(("shape", "size"), [((), (84, 80)), ((3,), (2 * 86 + 2, 2 * 82 + 2))])
@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_picture_that_moves_is_read_back(suffix, shape, size, tmp_path):
    path = save_animation(colours(7, *shape), tmp_path / "deep" / f"moving{suffix}", fps=15)
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.size, picture.info["loop"]) == (7, size, 0)
        lasted = 0
        for index in range(7):
            picture.seek(index)
            picture.load()
            lasted += picture.info["duration"]
            seen = np.asarray(picture.convert("RGB"))[40, 40].astype(int)
            assert abs(seen - round(index * 255 / 6)).max() <= 2
    assert lasted == pytest.approx(7000 / 15, abs=10)


@pytest.mark.parametrize(("shape", "size"), [((), (84, 80)), ((2,), (2 * 86 + 2, 84))])
def test_a_film_is_read_back(shape, size, tmp_path):
    av = pytest.importorskip("av")
    path = save_animation(colours(9, *shape), tmp_path / "moving.mp4", fps=20)
    with av.open(path) as film:
        stream = film.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (*size, 20)
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
    assert len(frames) == 9
    for index, frame in enumerate(frames):
        assert abs(frame[40, 40].astype(int) - index * 255 / 8).max() < 8


def test_odd_sides_of_a_film_get_a_white_line(tmp_path):
    av = pytest.importorskip("av")
    path = save_animation(-torch.ones(3, 3, 81, 83), tmp_path / "moving.mp4")
    with av.open(path) as film:
        frame = next(film.decode(video=0)).to_ndarray(format="rgb24")
    assert frame.shape == (82, 84, 3)
    assert frame[40, 40].max() < 10
    assert frame[81, 40].min() > 200


@pytest.mark.parametrize(
    ("frames", "name", "fps", "told"),
    [
        (colours(2), "moving.png", 15, "names no animation: end it with .gif, .webp, .mp4"),
        (colours(2), "moving.gif", 60, "shows 1 to 50 frames a second"),
        (colours(2), "moving.webp", 0, "shows 1 to 60 frames a second"),
        (colours(2)[0], "moving.gif", 15, r"Frames of shape \[3, 20, 21\]"),
        (torch.zeros(2, 2, 8, 8), "moving.gif", 15, "make no animation"),
        (torch.zeros(0, 3, 8, 8), "moving.gif", 15, "make no animation"),
    ],
)
def test_animations_that_are_not_possible(frames, name, fps, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        save_animation(frames, tmp_path / name, fps=fps)
    assert not list(tmp_path.iterdir())


def test_a_film_without_its_package_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)      # as if it were not installed
    with pytest.raises(ConfigError, match=r'pip install "genzoo\[video\]"'):
        save_animation(colours(2), tmp_path / "moving.mp4")
    code = main(["show", "interpolation", "dcgan", "--out", str(tmp_path / "moving.mp4")])
    assert (code, capsys.readouterr().err.count("\n")) == (2, 1)
    assert save_animation(colours(2), tmp_path / "moving.gif").exists()


# Beside real images.


def test_the_neighbour_of_a_copy_is_its_original(model, smileys, monkeypatch):
    network = zoo.load("dcgan")
    originals = [7, 100, 31]
    copies = normalise(smileys.read(originals))
    monkeypatch.setattr(network, "generate", lambda z, labels, **more: copies[torch.arange(len(z)) % 3])
    picture = neighbour_sheet(network, smileys, extractor("pixels"), n=3, k=2)
    assert picture.size == (3 * STEP + 2 + 10, 20 + 3 * (STEP + 17) + 2)
    for row, index in zip(tiles(picture, 3, 3, top=22, under=17, apart=10), originals):
        original = smileys.read([index])[0]
        assert torch.equal(row[0], original)
        assert torch.equal(row[1], original)
        assert not torch.equal(row[2], original)


def test_of_many_samples_the_nearest_are_shown_first(model, smileys):
    from zoo.metrics.sampling import Sampler

    features = extractor("pixels")
    heard = []
    picture = neighbour_sheet(
        model("dcgan"), smileys, features, n=2, k=1, samples=70, seed=1, progress=lambda *told: heard.append(told)
    )
    fakes = Sampler.of(model("dcgan"), smileys, seed=1, psi=1.0).read(0, 70)
    real = smileys.read(range(len(smileys)))
    distance = torch.cdist(features(fakes).double(), features(real).double())
    order = distance.min(1).values.argsort()[:2]
    for row, index in zip(tiles(picture, 2, 2, top=22, under=17, apart=10), order.tolist()):
        assert torch.equal(row[0], fakes[index])
        assert torch.equal(row[1], real[distance[index].argmin()])
    assert heard[-1] == ("fake", 70, 70)
    assert ("real", len(smileys), len(smileys)) in heard


def test_real_images_stand_left_and_samples_right(model, smileys):
    picture = real_and_fake(model("vae"), smileys, n=7, seed=2)
    assert picture.size == (4 * STEP + 2 + 10, 20 + 4 * STEP + 2)      # two columns of each, the last row not full
    real = {bytes(image.numpy().tobytes()) for image in smileys.read(range(len(smileys)))}
    for index in range(8):
        row, column = divmod(index, 2)
        top, left = 22 + row * STEP, 2 + column * STEP
        first, second = tile(picture, left, top), tile(picture, left + 2 * STEP + 10, top)
        if index < 7:
            assert first.numpy().tobytes() in real
            assert second.numpy().tobytes() not in real
        else:
            assert first.min() == second.min() == 255


def test_pictures_that_are_not_possible(model, smileys):
    network, features = model("dcgan"), extractor("pixels")
    for call, told in (
        (lambda: truncation_sweep(network, ()), "without any psi"),
        (lambda: truncation_sweep(network, n=0), "n=0 is not possible"),
        (lambda: truncation_sweep(network, ("1",)), "psi='1' is no number"),
        (lambda: truncation_sweep(network, (1e9,)), "at most 1000.0"),
        (lambda: interpolation(network, psi="1"), "psi='1' is no number"),
        (lambda: interpolation(network, steps=1), "steps=1 is not possible"),
        (lambda: sample_grid(network, n=5000), "from 1 to 1000"),
        (lambda: neighbour_sheet(network, smileys, features, n=4, samples=3), "integer of n=4 or more"),
        (lambda: neighbour_sheet(network, smileys, features, k=170), "k=170 is not possible"),
        (lambda: class_grid(model("biggan"), names=["a"]), "1 names for 7 classes"),
    ):
        with pytest.raises(ConfigError, match=told):
            call()
    with pytest.raises(EvaluationError, match=r"n=170, but .* has 169 images"):
        real_and_fake(network, smileys, n=170)
    with pytest.raises(Unsupported, match="dcgan was made without classes"):
        class_grid(network)


def test_broken_weights_are_named():
    network = zoo.load("dcgan")
    for parameter in network.parameters():
        parameter.data.fill_(float("nan"))
    for draw in (sample_grid, truncation_sweep, interpolation_strip):
        with pytest.raises(WeightsError, match="NaN or infinity"):
            draw(network, n=1)


# Classes.


def test_each_class_has_a_row_of_the_same_latents(model):
    network = model("biggan")
    picture = class_grid(network, n=2, seed=3)
    assert picture.height == 7 * STEP + 2
    for row, shown in enumerate(tiles(picture, 7, 2)):
        assert torch.equal(torch.stack(shown), to_bytes(network.sample(2, seed=3, labels=[row, row])))
    told = np.asarray(picture)[:, : picture.width - 2 * STEP]
    other = np.asarray(class_grid(network, n=2, seed=3, names=list("abcdefg")))
    assert other.shape[1] < picture.width          # the names of the data are longer
    assert all((told[row * STEP + 2 : (row + 1) * STEP] < 128).any() for row in range(7))


def test_of_many_classes_some_at_equal_distances_are_shown(tiny):
    network = tiny("dcgan", num_classes=39, channels=4)
    heard = []
    picture = class_grid(network, n=1, progress=lambda *told: heard.append(told))
    assert picture.height == 20 * (16 * 5 + 2) + 2
    assert heard[-1] == ("class", 20, 20)
    assert picture.mode == "RGB"
    last = np.asarray(picture)[-82:-2, -82:-2]
    from zoo.metrics.features import to_rgb

    wanted = to_rgb(to_bytes(network.sample(1, seed=0, labels=[38])))[0]
    assert torch.equal(torch.from_numpy(last[::5, ::5].copy()).permute(2, 0, 1), wanted)


# The command, and the page about it.

GUIDE = (Path(__file__).parent.parent / "docs" / "pictures.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```sh\nzoo (show .*--out (\S+))\n```\n\n!\[.*\]\(images/(\S+)\)$", GUIDE, re.MULTILINE)


@pytest.mark.parametrize(("command", "name", "image"), EXAMPLES)
def test_the_guides_pictures_are_those_of_its_commands(command, name, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name == image
    assert main(command.split()) == 0
    kept = Path(__file__).parent.parent / "docs" / "images" / image
    assert kept.stat().st_size < 150_000
    with Image.open(kept) as wanted, Image.open(name) as picture:
        assert (picture.size, getattr(picture, "n_frames", 1)) == (wanted.size, getattr(wanted, "n_frames", 1))
        drawn, known = (np.asarray(each.convert("RGB")).astype(int) for each in (picture, wanted))
    assert abs(drawn - known).mean() < 2      # another processor may round otherwise


def test_the_guide_tells_every_kind_and_its_options():
    assert len(EXAMPLES) == 3
    rows = re.findall(r"^\| `([\w-]+)` \| [^|]* \| ([^|]*)\| ([^|]*)\|$", GUIDE, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(KINDS)
    for name, data, options in rows:
        told = {option.lstrip("-") for option in re.findall(r"`(-[\w-]+)`", options)}
        assert told == {*KINDS[name].takes, *MOVING.get(name, KINDS[name]).takes}
        assert {"needed": "needed", "": "none"}.get(data.strip(), "possible") == KINDS[name].data


def shown(capsys, *arguments: object) -> str:
    capsys.readouterr()
    assert main(["show", *map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("kind", "arguments", "size"),
    [
        ("grid", ["-n", 5, "--psi", 0.7], (3 * STEP + 2, 2 * STEP + 2)),
        ("truncation", ["-n", 2], (None, 6 * STEP + 2)),
        ("interpolation", ["-n", 2, "--steps", 3, "--psi", 0.7], (3 * STEP + 2, 2 * STEP + 2)),
        ("neighbours", [SET, "-n", 2, "--samples", 20, "--features", "pixels"], (5 * STEP + 12, None)),
        ("real-and-fake", [SET, "-n", 8], (4 * STEP + 12, 20 + 4 * STEP + 2)),
    ],
)
def test_the_command_draws(kind, arguments, size, tmp_path, capsys):
    out = tmp_path / "deep" / "picture.png"
    assert shown(capsys, kind, "dcgan", *arguments, "--seed", 1, "--out", out) == str(out)
    with Image.open(out) as picture:
        assert all(wanted in (None, given) for wanted, given in zip(size, picture.size))
        first = np.asarray(picture)
    shown(capsys, kind, "dcgan", *arguments, "--seed", 2, "--out", out)
    with Image.open(out) as picture:
        assert not np.array_equal(first, np.asarray(picture))


def test_the_command_names_classes_as_the_data_does(tmp_path, capsys):
    for name in "abcdefg":
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / "0.png")
    out = tmp_path / "picture.png"
    shown(capsys, "classes", "biggan", tmp_path / "data", "-n", 1, "--out", out)
    wanted = class_grid(zoo.load("biggan"), n=1, names=list("abcdefg"))
    with Image.open(out) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(wanted))


def test_the_command_animates(tmp_path, capsys):
    out = tmp_path / "moving.gif"
    assert animated(out)
    shown(capsys, "interpolation", "dcgan", "-n", 1, "--steps", 6, "--fps", 10, "--out", out)
    with Image.open(out) as picture:
        assert (picture.n_frames, picture.size, picture.info["duration"]) == (6, (96, 96), 100)


def test_the_command_takes_a_run(tiny, tmp_path, capsys):
    run = zoo.train(tiny("dcgan"), SET, kimg=0.008, batch=8, out=tmp_path / "run")
    out = tmp_path / "picture.png"
    shown(capsys, "grid", run.directory, "-n", 1, "--out", out)
    drawn = to_bytes(run.model.sample(1, seed=0))[0].permute(1, 2, 0).numpy()
    with Image.open(out) as picture:
        assert picture.size == (84, 84)
        assert np.array_equal(np.asarray(picture)[2:-2:5, 2:-2:5], drawn)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["truncatoin", "dcgan", "--out", "x.png"], "Did you mean 'truncation'? Possible: grid, truncation"),
        (["neighbours", "dcgan", "--out", "x.png"], "Missing argument 'DATA'"),
        (["grid", "dcgan", SET, "--out", "x.png"], "shows the model alone"),
        (["truncation", "dcgan", "--psi", "1", "--out", "x.png"], "--psi says nothing"),
        (["interpolation", "dcgan", "--fps", "5", "--out", "x.png"], "--fps says nothing"),
        (["grid", "dcgan", "--out", "x.mp4"], "names no picture format"),
        (["interpolation", "dcgan", "--fps", "99", "--out", "x.gif"], "1 to 50 frames a second"),
        (["classes", "dcgan", "--out", "x.png"], "without classes"),
        (["neighbours", "dcgan", SET, "--features", "pixel", "--out", "x.png"], "Did you mean 'pixels'?"),
        (["grid", f"data:{SET}", "--out", "x.png"], "a model makes these pictures"),
        (["grid", "dcgn", "--out", "x.png"], "Did you mean 'dcgan'?"),
        (["grid", "dcgan"], "Missing option '--out'"),
    ],
)
def test_a_mistake_is_one_line(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["show", *arguments]) == 2
    seen = capsys.readouterr()
    assert seen.err.count("\n") == 1
    assert told in seen.err
    assert not list(tmp_path.glob("x.*"))
