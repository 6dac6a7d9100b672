"""The audit for copies of training images: known answers, held-out images, and what it refuses."""

import json

import numpy as np
import pytest
import torch

import zoo
from zoo.data import open_images
from zoo.errors import EvaluationError
from zoo.metrics.memorisation import memorisation
from zoo.metrics.names import extractor
from zoo.watchdog.holdout import divided


def draw(n, seed, *, dimensions=8):
    """Points in three clouds of unequal spread."""
    chance = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.3, 2, dimensions)
    return torch.randn(n, dimensions, generator=chance) * spread + 6 * torch.randint(0, 3, (n, 1), generator=chance)


def first(n, count):
    return torch.arange(n) < count


@pytest.fixture(scope="module")
def emoji():
    """Pixel features of 800 emoji to train on, 150 held out, and 400 that nobody saw."""
    images = open_images("emoji", resolution=32, channels=3)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:1350]
    pixels = images.read(order.tolist())
    return pixels[:950], first(950, 150), pixels[950:]


@pytest.mark.parametrize("held", [150, 0], ids=["held-out", "no-held-out"])
def test_copies_are_found_and_unseen_images_are_none(emoji, held):
    shown, _, unseen = emoji
    features, mask = extractor("pixels"), first(950, held)
    training = shown[~mask]
    noise = 3 * torch.randn(training[:400].shape, generator=torch.Generator().manual_seed(1))
    fakes = {
        "unseen": unseen,
        "copies": training[:400],
        "one in four": torch.cat([unseen[:300], training[:100]]),
        "noisy": (training[:400] + noise).round().clamp(0, 255).to(torch.uint8),
    }
    real = features(shown)
    found = {name: memorisation(real, features(images), held_out=mask) for name, images in fakes.items()}
    near = {name: values["near_copies"] for name, values in found.items()}
    assert near["unseen"] < 0.01 + 3 * found["unseen"]["near_copies_std_error"]
    assert near["copies"] == 1
    assert near["one in four"] == pytest.approx(0.25, abs=0.04)
    assert near["noisy"] > 0.9
    assert abs(found["unseen"]["ct"]) < 2.5
    assert max(found[name]["ct"] for name in ("copies", "noisy")) < -8
    assert found["copies"]["authenticity"] == 0
    expected = found["unseen"]["authenticity_real"]
    assert found["unseen"]["authenticity"] == pytest.approx(expected, abs=0.1)
    assert found["noisy"]["authenticity"] < expected - 0.3


def test_it_is_as_dgm_eval_defines_it():
    """Authenticity by its definition, over all pairs; C_T in one cell by counting all pairs."""
    real, fake = draw(120, 0).double(), draw(110, 1).double()
    across, among = torch.cdist(fake, real), torch.cdist(real, real).fill_diagonal_(torch.inf)
    nearest = across.argmin(1)
    authentic = (across.min(1).values > among.min(1).values[nearest]).double().mean()
    pairs = across.min(1).values[:, None] - among.min(1).values
    u = (pairs > 0).sum() + 0.5 * (pairs == 0).sum()
    z = (u - 110 * 120 / 2) / (110 * 120 * 231 / 12) ** 0.5
    found = memorisation(real, fake)
    assert found["authenticity"] == pytest.approx(float(authentic))
    assert found["ct"] == pytest.approx(float(z), rel=1e-6)


@pytest.mark.parametrize(("reals", "fakes", "held"), [(600, 500, 0), (800, 500, 200)], ids=["no-held-out", "held-out"])
def test_unseen_images_are_near_copies_by_chance_alone(reals, fakes, held):
    found = [memorisation(draw(reals, 2 * i), draw(fakes, 2 * i + 1), held_out=first(reals, held)) for i in range(60)]
    shares = np.array([each["near_copies"] for each in found])
    stated = np.array([each["near_copies_std_error"] for each in found])
    assert shares.mean() == pytest.approx(0.01, abs=4 * shares.std() / 60**0.5)
    assert stated.mean() == pytest.approx(shares.std(), rel=0.4)
    scores = np.array([each["ct"] for each in found])
    assert abs(scores.mean()) < 0.4
    assert abs(scores).max() < 3
    authentic, error = (np.array([each[name] for each in found]) for name in ("authenticity", "authenticity_std_error"))
    assert error.mean() == pytest.approx(authentic.std(), rel=0.4)


def test_a_region_that_is_copied_is_found_though_the_others_are_far_off():
    """Over all images the far ones outweigh the copies; within its cell the copying shows."""
    real, fake = draw(3000, 0), draw(3000, 1)
    cloud = fake.mean(1) < 3
    fake[~cloud] += 1.5 * torch.randn(fake[~cloud].shape, generator=torch.Generator().manual_seed(2))
    better = memorisation(real, fake)
    fake[cloud] = real[real.mean(1) < 3][: int(cloud.sum())].repeat(2, 1)[: int(cloud.sum())]
    found = memorisation(real, fake)
    assert better["ct"] > 0
    assert found["ct"] < better["ct"] - 3
    assert found["near_copies"] > 0.3 > 0.02 > better["near_copies"]


@pytest.mark.parametrize("held", [200, 0], ids=["held-out", "no-held-out"])
def test_doubles_in_the_data_hide_no_copies(held):
    """Were they unseen images, the nearest of these would be at distance 0, and nothing but exact copies as near."""
    real = draw(600, 0)
    real[180:200], real[220:240] = real[200:220], real[240:260]
    mask = first(600, held)
    noisy = real[300:500] + 1e-3 * draw(200, 3)
    assert memorisation(real, noisy, held_out=mask)["near_copies"] == 1
    assert memorisation(real, draw(200, 1), held_out=mask)["near_copies"] < 0.04


def test_few_held_out_images_are_left_out_of_both_sides():
    real, fake = draw(400, 0), draw(300, 1)
    few = memorisation(real, fake, held_out=first(400, 60))
    assert few == memorisation(real[60:], fake)
    assert few != memorisation(real, fake)


def test_what_cannot_be_audited_is_refused_in_one_line():
    real, fake = draw(150, 0), draw(120, 1)
    broken = fake.clone()
    broken[0, 0] = float("nan")
    for reals, fakes, held, said in (
        (real, fake[:1], 0, "150 real and 1 fake images are too few: give 100"),
        (real, broken, 0, "fake images are not all finite"),
        (real, fake, 60, "Only 90 of the real images were trained on"),
        (real[:10].repeat(15, 1), fake, 0, "All but 0 of the real images are doubles"),
        (real, fake[:, :4], 0, r"\[150, 8\] and \[120, 4\]"),
    ):
        with pytest.raises(EvaluationError, match=said) as caught:
            memorisation(reals, fakes, held_out=first(len(reals), held))
        assert "\n" not in str(caught.value)


def test_the_images_that_a_run_held_out_are_what_unseen_images_are_like(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    model = zoo.create("dcgan", resolution=16, generator_width=8, discriminator_width=8)
    data = "emoji:animals-nature,objects"
    run = zoo.train(model, data, kimg=0.008, batch=8, out=tmp_path / "run", hold_out=120)
    options = {"metrics": ["memorisation"], "features": "pixels", "samples": 128}
    found = zoo.evaluate(run, data, **options)
    assert found.receipt["model"]["held_out"] == 120
    images = open_images(data, resolution=16, channels=3)
    training, held = divided(images, 120)
    features = extractor("pixels")
    real = features(torch.cat([held.read(range(120)), training.read(range(len(training)))]))
    fake = features(zoo.evaluation.opened(run).fakes(images, 128, seed=0, psi=1.0)[0].read(0, 128))
    expected = memorisation(real, fake, held_out=first(len(images), 120))
    assert found["authenticity_real"] == pytest.approx(expected["authenticity_real"])
    assert found["near_copies"] == pytest.approx(expected["near_copies"])

    other = zoo.evaluate(run, "emoji:animals-nature", **options)      # not the data it was trained on
    assert "held_out" not in other.receipt["model"]
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    for wrong in ({"held_out": "many"}, {"held_out": 10**6}, {"data": None}):
        (tmp_path / "run" / "run.json").write_text(json.dumps(settings | wrong))
        assert "held_out" not in zoo.evaluate(run, data, **options).receipt["model"]
