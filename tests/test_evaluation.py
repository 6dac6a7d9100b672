"""zoo.evaluate: what it measures, that it repeats, what the receipt says, and what it refuses."""

import json
import re
import shutil

import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from zoo.data import normalise, open_images
from zoo.errors import DataError, EvaluationError, UnknownName
from zoo.images import to_bytes
from zoo.metrics import store
from zoo.metrics.names import extractor
from zoo.metrics.sampling import Sampler
from zoo.subjects import chosen


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("zoo-home")
    monkeypatch.setenv("ZOO_HOME", str(path))
    return path


class Fixed(zoo.Model):
    """Shows the images that it was given, in their order, whatever the latent; each class its own if it has classes."""

    latent_size = 2

    def __init__(self, images, classes=0):
        super().__init__(zoo.ModelConfig(resolution=images.shape[-1], channels=images.shape[1], num_classes=classes))
        self.images = nn.Parameter(images)

    def generate(self, z, labels, *, psi, chance):
        places = torch.arange(len(z)) if labels is None else labels.argmax(1)
        return self.images[places % len(self.images)]

    def recipe(self):
        return zoo.Recipe(phases=())


def folder_of(tmp_path, counts, *, size=16):
    """Make an image folder of random pictures, a class for each name: {"cats": 6}."""
    chance = torch.Generator().manual_seed(1)
    for name, count in counts.items():
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            pixels = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8, generator=chance)
            Image.fromarray(pixels.numpy()).save(tmp_path / name / f"{i}.png")
    return tmp_path


def tiny(resolution=16):
    torch.manual_seed(0)
    return zoo.create("dcgan", resolution=resolution, generator_width=8, discriminator_width=8)


SMALL = {"metrics": ("kid", "precision_recall"), "features": "pixels"}


def test_a_model_that_shows_the_data_is_perfect():
    images = open_images("emoji:smileys-emotion", resolution=32, channels=3)
    model = Fixed(normalise(images.read(range(64))))
    found = zoo.evaluate(model, images, samples=64, **SMALL)
    assert found["precision"] == 1
    assert found["recall"] > 0.5
    noise = zoo.evaluate(Fixed(torch.rand(64, 3, 32, 32) * 2 - 1), images, samples=64, **SMALL)
    assert (noise["precision"], noise["recall"]) == (0, 0)
    assert noise["kid"] > found["kid"] + 5 * noise["kid_std_error"]


def test_the_same_images_are_at_distance_zero(tmp_path):
    data = folder_of(tmp_path, {"noise": 64})
    images = open_images(data, resolution=16, channels=3)
    model = Fixed(normalise(images.read(range(64))))
    chosen = "fid, precision_recall, density_coverage"
    found = zoo.evaluate(model, data, samples=64, metrics=chosen, features="pixels", force=True)
    assert found["fid"] == pytest.approx(0, abs=1e-9)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)


def test_the_same_seed_gives_the_same_values_however_it_is_batched():
    model, data = tiny(), "emoji:smileys-emotion"
    first = zoo.evaluate(model, data, samples=100, seed=3, **SMALL)
    assert zoo.evaluate(model, data, samples=100, seed=3, **SMALL) == first
    cut = zoo.evaluate(model, data, samples=100, seed=3, batch=7, **SMALL)
    assert cut.values == pytest.approx(first.values, rel=1e-5)
    assert zoo.evaluate(model, data, samples=100, seed=4, **SMALL).values != first.values
    assert zoo.evaluate(model, data, samples=100, seed=3, psi=0.5, **SMALL).values != first.values


def test_image_i_does_not_depend_on_how_many_are_drawn():
    images = open_images("emoji:smileys-emotion", resolution=16, channels=3)
    sampler = Sampler.of(tiny(), images, seed=5, psi=1.0)
    many = torch.cat(list(sampler.batches(150, 64)))
    few = torch.cat(list(sampler.batches(70, 11)))
    assert [len(each) for each in sampler.batches(150, 64)] == [64, 64, 22]
    assert many.dtype == torch.uint8
    assert torch.equal(few, many[:70])
    assert not torch.equal(many[:64], many[64:128])


def test_samples_are_measured_as_they_would_be_saved():
    shown = torch.linspace(-1.2, 1.2, 64 * 3 * 16 * 16).view(64, 3, 16, 16)
    sampler = Sampler(Fixed(shown), 0, 1.0, None, "none")
    assert torch.equal(sampler.chunk(0), to_bytes(shown))
    assert sampler.chunk(0)[32, 0, 0, 0] == round((float(shown[32, 0, 0, 0]) + 1) * 127.5)


def test_labels_are_as_frequent_as_in_the_data(tmp_path):
    data = folder_of(tmp_path, {"cats": 6, "dogs": 18, "mice": 1})
    images = open_images(data, resolution=16, channels=3)
    colours = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1, 1).expand(3, 3, 16, 16)
    sampler = Sampler.of(Fixed(colours.clone(), classes=3), images, seed=0, psi=1.0)
    shown = torch.cat(list(sampler.batches(2000, 64)))[:, 0, 0, 0]
    shares = [(shown == value).float().mean().item() for value in (0, 128, 255)]
    assert sampler.labels == "as in the data"
    assert shares == pytest.approx([6 / 25, 18 / 25, 1 / 25], abs=0.04)

    two = Sampler.of(Fixed(colours[:2].clone(), classes=2), images, seed=0, psi=1.0)
    assert two.labels == "uniform"
    assert (torch.cat(list(two.batches(1000, 64)))[:, 0, 0, 0] == 0).float().mean() == pytest.approx(0.5, abs=0.06)


def test_the_receipt_says_what_the_values_depend_on(tmp_path):
    model = tiny()
    found = zoo.evaluate(model, "emoji:smileys-emotion", samples=80, reference=90, seed=2, psi=0.9, **SMALL)
    receipt = found.receipt
    assert (receipt["real_images"], receipt["fake_images"], receipt["seed"], receipt["psi"]) == (90, 80, 2, 0.9)
    assert receipt["metrics"] == ["kid", "precision_recall"]
    assert (receipt["labels"], receipt["forced"]) == ("none", [])
    features = extractor("pixels")
    assert receipt["features"] == {"name": "pixels", "digest": features.digest,
                                   "resize": "area-32", "dimensions": 444}  # fmt: skip
    images = open_images("emoji:smileys-emotion", resolution=16, channels=3)
    assert receipt["data"] == {"name": "emoji:smileys-emotion", "fingerprint": images.fingerprint,
                               "resolution": 16, "channels": 3, "skipped": 0}  # fmt: skip
    assert receipt["model"]["architecture"] == "dcgan"
    assert receipt["versions"]["torch"] == torch.__version__.partition("+")[0] or torch.__version__
    assert re.fullmatch(r"[0-9a-f]{64}", receipt["reference_digest"])

    other = zoo.evaluate(model, "emoji:animals-nature", samples=80, reference=90, seed=2, psi=0.9, **SMALL).receipt
    assert other["reference_digest"] != receipt["reference_digest"]
    assert other["model"]["digest"] == receipt["model"]["digest"]
    with torch.no_grad():
        next(model.parameters()).add_(0.01)
    changed = zoo.evaluate(model, "emoji:smileys-emotion", samples=80, reference=90, seed=2, psi=0.9, **SMALL).receipt
    assert changed["model"]["digest"] != receipt["model"]["digest"]

    written = found.save(tmp_path / "deep" / "evaluation.json")
    assert json.loads(written.read_text()) == found.to_dict() == json.loads(found.to_json())
    assert "80 samples (seed 2, psi 0.9) against 90 images of emoji:smileys-emotion" in str(found)
    assert f"{found['kid']:.6g}" in str(found)


def test_progress_is_told_for_both_sides():
    heard = []
    zoo.evaluate(tiny(), "emoji:smileys-emotion", samples=100, progress=lambda *told: heard.append(told), **SMALL)
    assert heard == [
        ("real", 64, 169), ("real", 128, 169), ("real", 169, 169), ("fake", 64, 100), ("fake", 100, 100),
    ]  # fmt: skip


def test_features_of_real_images_are_kept_for_each_data_and_extractor(home, tmp_path):
    data = folder_of(tmp_path, {"noise": 40})
    first = zoo.evaluate(tiny(), data, samples=40, **SMALL)
    (kept,) = (home / "features-cache").iterdir()
    features = store.read(kept)["features"]
    assert features.shape == (40, 444)
    store.write(kept, {"features": features + 1})               # proves that the next call reads it
    assert zoo.evaluate(tiny(), data, samples=40, **SMALL).values != first.values
    kept.unlink()
    (data / "noise" / "0.png").unlink()
    zoo.evaluate(tiny(), data, samples=40, **SMALL)
    zoo.evaluate(tiny(), data, samples=40, reference=20, **SMALL)
    zoo.evaluate(tiny(resolution=32), data, samples=40, **SMALL)
    assert len(set((home / "features-cache").iterdir()) | {kept}) == 4


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(home):
    (home / "features-cache").write_text("a file where the folder should be")
    assert zoo.evaluate(tiny(), "emoji:smileys-emotion", samples=40, **SMALL)["kid"] > 0


def test_a_run_is_measured_by_its_model_and_keeps_the_receipt(tmp_path):
    run = zoo.train(tiny(), "emoji:smileys-emotion", kimg=0.016, batch=8, out=tmp_path / "run")
    found = zoo.evaluate(run, "emoji:smileys-emotion", samples=40, **SMALL)
    kept = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert kept == found.to_dict() == run.evaluation
    for same in (str(tmp_path / "run"), f"dir:{tmp_path}/run/model", tmp_path / "run" / "model"):
        assert zoo.evaluate(same, "emoji:smileys-emotion", samples=40, **SMALL).values == found.values


def test_fid_of_too_few_images_is_refused_unless_forced():
    said = r"169 real and 100 fake .* on 444 features.*'kid'.*give 444 of each"
    with pytest.raises(EvaluationError, match=said) as caught:
        zoo.evaluate(tiny(), "emoji:smileys-emotion", samples=100, features="pixels")
    assert "\n" not in str(caught.value)
    forced = zoo.evaluate(tiny(), "emoji:smileys-emotion", samples=100, features="pixels", force=True)
    assert forced["fid"] > 0
    assert forced.receipt["forced"] == ["fid"]


class Unsampled(Fixed):
    """Fails when it is asked for images: what is refused must be refused before that."""

    def generate(self, z, labels, *, psi, chance):
        raise AssertionError("sampled before the check")


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"metrics": ("kid", "fidd")}, UnknownName, "Did you mean 'fid'"),
        ({"metrics": ()}, EvaluationError, "No metrics were given; possible: cmmd, "),
        ({"features": "inceptoin"}, UnknownName, "Did you mean 'inception'"),
        ({"samples": 0}, EvaluationError, "samples=0"),
        ({"batch": 0}, EvaluationError, "batch=0"),
        ({"reference": 1000}, EvaluationError, "reference=1000, but emoji:smileys-emotion has 169"),
        ({"samples": 3}, EvaluationError, "169 real and 3 fake .* metric 'precision_recall': give 4 of each"),
        ({"data": "no-such-folder"}, DataError, "no-such-folder"),
    ],
)
def test_impossible_requests_are_refused_in_one_line_before_any_work(options, kind, said):
    call = {"data": "emoji:smileys-emotion", "samples": 50, **SMALL} | options
    with pytest.raises(kind, match=said) as caught:
        zoo.evaluate(Unsampled(torch.zeros(1, 3, 16, 16)), **call)
    assert "\n" not in str(caught.value)


def test_a_broken_model_is_named():
    with pytest.raises(EvaluationError, match="NaN or infinity"):
        zoo.evaluate(Fixed(torch.full((1, 3, 16, 16), float("nan"))), "emoji:smileys-emotion", samples=40, **SMALL)


class Pictures(torch.utils.data.Dataset):
    """Images of a set as torch-fidelity takes them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


@pytest.mark.slow
def test_values_agree_with_torch_fidelity_from_images_on(tmp_path):
    from torch_fidelity import calculate_metrics

    from zoo.metrics import inception_weights

    state = inception_weights.load()
    biases = [name for name in state if name.endswith("bn.bias")]
    ones = {name.removesuffix("bias") + "weight": torch.ones_like(state[name]) for name in biases}
    head = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save({**state, **ones, **head}, tmp_path / "weights.pth")

    model, images = zoo.load("stylegan"), open_images("emoji", resolution=32, channels=3)
    ours = zoo.evaluate(model, images, samples=1000, reference=1000, force=True, errors=0)
    fakes = Sampler.of(model, images, seed=0, psi=1.0).read(0, 1000)
    theirs = calculate_metrics(
        input1=Pictures(fakes), input2=Pictures(images.read(chosen(images, 1000, 0))), cuda=False, fid=True, kid=True,
        kid_subset_size=500, prc=True, verbose=False, cache=False, save_cpu_ram=False, batch_size=32,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(tmp_path / "weights.pth"),
    )  # fmt: skip
    assert ours["fid"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    error = theirs["kernel_inception_distance_std"]
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], abs=error)
    assert ours["precision"] == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours["recall"] == pytest.approx(theirs["recall"], abs=1e-6)


def test_what_was_done_of_a_large_set_is_kept_when_the_work_ends_early(home):
    def stop(stage, done, total):
        if done > 1024:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zoo.evaluate(tiny(), "emoji", samples=40, progress=stop, **SMALL)
    heard = []
    found = zoo.evaluate(tiny(), "emoji", samples=40, progress=lambda *told: heard.append(told), **SMALL)
    assert heard[0] == ("real", 1024, 1636)
    shutil.rmtree(home / "features-cache")
    assert zoo.evaluate(tiny(), "emoji", samples=40, **SMALL).values == found.values
