"""zoo.evaluate of images that exist already, within a time, and by several processes."""

import json
import os
import time

import pytest
from PIL import Image
from processes import together

import zoo
from zoo.cli import main
from zoo.data import open_images
from zoo.errors import EvaluationError
from zoo.images import to_bytes
from zoo.noise import key
from zoo.repetition import repeat

SMALL = {"metrics": ("kid", "precision_recall"), "features": "pixels"}
SMILEYS = "emoji:smileys-emotion"


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("zoo-home")
    monkeypatch.setenv("ZOO_HOME", str(path))
    return path


def test_images_are_judged_as_those_of_a_model_are(tiny, tmp_path):
    model = tiny("dcgan")
    found = zoo.evaluate(model, SMILEYS, samples=64, **SMALL)
    shown = model.sample(64, seed=key("evaluation", 0, 0))
    for i, pixels in enumerate(to_bytes(shown)):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / f"{i:02d}.png")
    given = zoo.evaluate(f"data:{tmp_path}", SMILEYS, **SMALL)
    assert given.values == found.values
    assert given.receipt["fake_images"] == 64
    assert given.receipt["model"]["architecture"] == "images"
    assert given.receipt["data"]["resolution"] == shown.shape[-1]      # that of the images
    assert str(given).endswith(found.receipt["features"]["digest"][:12])


def test_a_set_is_at_no_distance_from_itself():
    found = zoo.evaluate(f"data:{SMILEYS}", SMILEYS, metrics=("fid", "precision_recall"), features="pixels", force=True)
    assert found["fid"] == pytest.approx(0, abs=1e-6)
    assert (found["precision"], found["recall"]) == (1, 1)


def test_given_images_are_chosen_read_and_refused(tmp_path):
    few = zoo.evaluate(f"data:{SMILEYS}", "emoji:objects", samples=40, seed=1, resolution=16, **SMALL)
    assert (few.receipt["fake_images"], few.receipt["data"]["resolution"]) == (40, 16)
    other = zoo.evaluate(f"data:{SMILEYS}", "emoji:objects", samples=40, seed=2, resolution=16, **SMALL)
    assert few.values != other.values
    images = open_images(SMILEYS, resolution=16, channels=3)
    assert zoo.evaluate(images, "emoji:objects", samples=40, seed=1, **SMALL).values == few.values
    few.save(tmp_path / "evaluation.json")
    assert repeat(tmp_path / "evaluation.json").largest == 0
    with pytest.raises(EvaluationError, match=r"psi=0.5 truncates what a model makes, but images were given"):
        zoo.evaluate(images, "emoji:objects", psi=0.5, **SMALL)
    with pytest.raises(EvaluationError, match=r"resolution=16 is for given images; a model has its own"):
        zoo.evaluate("dcgan", SMILEYS, resolution=16, **SMALL)
    with pytest.raises(EvaluationError, match=r"int is no model, run, name or path"):
        zoo.evaluate(3, SMILEYS, **SMALL)


def test_a_budget_takes_what_fits_and_says_what_did_not(tiny, tmp_path):
    begun = time.monotonic()
    found = zoo.evaluate(tiny("dcgan"), "emoji", metrics=("fid", "kid"), features="pixels", samples=200, budget=1e-3)
    assert time.monotonic() - begun < 60                                 # not of all 1,636
    receipt = found.receipt
    assert (receipt["real_images"], receipt["fake_images"]) == (64, 64)      # a batch at least
    assert receipt["metrics"] == ["kid"]
    assert "64 real and 64 fake images are too few for metric 'fid'" in receipt["left_out"]["fid"]
    assert "fid was left out: 64 real" in str(found)
    assert f"± {found['kid_std_error']:.2g}" in str(found)
    found.save(tmp_path / "evaluation.json")

    ample = zoo.evaluate(tiny("dcgan"), SMILEYS, samples=200, budget=3600, **SMALL).receipt
    assert (ample["real_images"], ample["fake_images"], ample["reference"]) == (169, 200, None)
    assert ample["left_out"] == {}


def test_with_the_real_features_kept_a_budget_takes_all_of_them(tiny):
    zoo.evaluate(tiny("dcgan"), SMILEYS, samples=8, **SMALL)
    found = zoo.evaluate(tiny("dcgan"), SMILEYS, samples=200, budget=1e-3, **SMALL).receipt
    assert (found["real_images"], found["fake_images"]) == (169, 64)


def test_a_budget_is_typed_as_a_time(tiny, tmp_path, capsys):
    zoo.save(tiny("dcgan"), tmp_path / "model")
    command = ["evaluate", f"dir:{tmp_path}/model", SMILEYS, "--features", "pixels", "--metrics", "kid"]
    assert main([*command, "--samples", "64", "--budget", "1.5m", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["receipt"]["given"]["budget"] == 90
    for text in ("soon", "-3s", "0", "1e9m", "5 d"):
        assert main([*command, "--budget", text]) == 2
        assert "is no length of time: write 60s, 5m or 1h" in capsys.readouterr().err
    with pytest.raises(EvaluationError, match=r"budget=nan is not possible: give seconds"):
        zoo.evaluate(tiny("dcgan"), SMILEYS, budget=float("nan"), **SMALL)
    with pytest.raises(EvaluationError, match=r"The budget is too small for any of the metrics: 64 real .* 'fid'"):
        zoo.evaluate(tiny("dcgan"), "emoji", metrics=("fid",), features="pixels", budget=1e-3)


def evaluated(folder, home, shared):
    """Return values and receipt; in a home of its own, so that no features are found there."""
    os.environ["ZOO_HOME"] = str(home)
    found = zoo.evaluate(f"dir:{folder}", SMILEYS, samples=150, batch=20, shared=shared, **SMALL)
    return found.values, found.receipt


def refused(folder):
    try:
        zoo.evaluate(f"dir:{folder}", SMILEYS, metrics=("fid",), samples=150, features="pixels", shared=True)
    except EvaluationError as error:
        return str(error)
    return ""


def test_two_processes_find_the_values_of_one(tiny, tmp_path):
    model = tmp_path / "model"
    zoo.save(tiny("dcgan"), model)
    alone = together(evaluated, 1, model, tmp_path / "alone", False)
    shared = together(evaluated, 2, model, tmp_path / "shared", True)
    assert shared == [alone[0], alone[0]]      # bit for bit
    said = together(refused, 2, model)
    assert said[0] == said[1]
    assert "too few for metric 'fid'" in said[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("intra_fid", "emoji:smileys-emotion has no classes"),
        ("inception_score", "'pixels' have no classifier"),
        ("reconstruction", "has no encoder"),
        ("ppl_wend", "has no mapping to styles"),
    ],
)
def test_what_a_metric_lacks_is_missed_before_the_work_begins(tiny, name, said):
    heard = []
    with pytest.raises(zoo.ZooError, match=said):
        zoo.evaluate(
            tiny("dcgan"), SMILEYS, metrics=("kid", name), samples=20, features="pixels", force=True,
            progress=lambda *told: heard.append(told),
        )  # fmt: skip
    assert not heard
