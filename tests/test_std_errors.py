"""Standard errors of values: that they tell how much values move from one choice of images to another."""

import pytest
import torch

import zoo
from zoo.errors import EvaluationError, PluginError
from zoo.metrics.errors import with_std_errors
from zoo.metrics.metric import Metric
from zoo.metrics.names import metric


def sets(seed, count=150, dimensions=8):
    chance = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(2, count, dimensions, generator=chance)
    return {"real": real, "fake": fake * 0.8 + 0.3}


def told(name, given, groups=10):
    return with_std_errors(metric(name), {**given, "seed": 0}, groups=groups, seed=0)


@pytest.mark.parametrize(
    ("name", "values"),
    [("fid", ["fid"]), ("precision_recall", ["precision", "recall"]), ("density_coverage", ["density", "coverage"]),
     ("vendi", ["vendi"]), ("kid", ["kid"])],
)  # fmt: skip
def test_they_are_about_the_scatter_of_values_of_independent_images(name, values):
    found = [told(name, sets(seed)) for seed in range(40)]
    for value in values:
        scatter = torch.tensor([each[value] for each in found]).std()
        error = torch.tensor([each[f"{value}_std_error"] for each in found]).mean()
        assert 0.6 < error / scatter < 1.7      # 40 sets tell the scatter to about a ninth


def test_the_errors_of_more_images_are_smaller():
    few, many = (told("fid", sets(0, count))["fid_std_error"] for count in (100, 1600))
    assert 0.12 < many / few < 0.5      # a quarter in the long run


def test_a_mean_has_the_textbook_error():
    features = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    mean = Metric(lambda real, fake: {"mean": float(fake.mean())})
    found = with_std_errors(mean, {"real": features, "fake": features}, groups=500, seed=0)      # each image by itself
    assert found["mean_std_error"] == pytest.approx(float(features.std() / 500**0.5), rel=1e-4)


def test_labels_stay_with_their_images():
    given = {**sets(1, 60), "real_labels": torch.arange(60) % 3, "fake_labels": torch.arange(60) % 3}
    given["fake"] = given["fake_labels"][:, None] + torch.zeros(60, 8)

    def agreement(real, fake, real_labels, fake_labels):
        assert len(real) == len(real_labels)
        assert torch.equal(fake[:, 0], fake_labels.float())
        return {"agreement": float(len(fake))}

    asked = Metric(agreement, inputs=("real", "fake", "real_labels", "fake_labels"))
    found = with_std_errors(asked, given, groups=6, seed=0)
    assert found == {"agreement": 60.0, "agreement_std_error": 0.0}      # 50 images each time


def test_where_there_are_none():
    assert set(told("fid", sets(0), groups=0)) == {"fid"}
    assert not any(name.startswith("ndb") and name.endswith("_std_error") for name in told("ndb", sets(0)))
    assert set(told("density_coverage", sets(0, count=6))) == {"density", "coverage"}      # 5 are too few for k = 5
    with pytest.raises(EvaluationError, match=r"errors=1 is not possible: give 2 to 1000 groups, or 0"):
        zoo.evaluate("dcgan", "emoji:smileys-emotion", errors=1)


def test_a_metric_cannot_ask_for_what_there_is_not():
    with pytest.raises(PluginError, match=r"asks for weather; it may have real, fake, seed, "):
        Metric(lambda real, weather: {}, inputs=("real", "weather"))
