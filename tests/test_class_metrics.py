"""Metrics that need classes or a classifier: the Inception Score, intra-FID, conditional accuracy."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import zoo
from zoo.data import open_images
from zoo.errors import EvaluationError
from zoo.metrics.conditional import conditional_accuracy
from zoo.metrics.features import Classifier, FeatureExtractor
from zoo.metrics.frechet import frechet_distance
from zoo.metrics.inception_score import inception_score, score, splits
from zoo.metrics.intra_class import intra_class_distance
from zoo.metrics.names import extractor, metric


def logits(n, classes=20, seed=0, *, sure=3.0):
    return sure * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))


def reader(weight, bias=None, name="inception"):
    """An extractor whose features are given, and whose classifier has this weight."""
    head = Classifier(lambda: (weight, bias))
    return FeatureExtractor(name, "0" * 64, "none", weight.shape[1], lambda x: x, torch.device("cpu"), head)


# The Inception Score.


@pytest.mark.parametrize("n", [5000, 237, 20])
def test_the_score_agrees_with_torch_fidelity(n):
    from torch_fidelity.metric_isc import isc_features_to_metric

    given = logits(n)
    theirs = isc_features_to_metric(given, splits=10, shuffle=False)
    mean, std = score(splits(given))
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert std == pytest.approx(theirs["inception_score_std"], rel=1e-6)
    assert 1.2 < mean < 20


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save")
def test_the_score_agrees_with_torchmetrics():
    from torchmetrics.image.inception import InceptionScore

    given = logits(500)
    theirs = InceptionScore(feature=torch.nn.Identity(), splits=10)
    theirs.update(given.double())
    torch.manual_seed(3)
    mean, std = theirs.compute()
    torch.manual_seed(3)
    ours = score(splits(given[torch.randperm(500)]))
    assert ours == pytest.approx((float(mean), float(std) * math.sqrt(9 / 10)), rel=1e-6)      # theirs divides by 9


def test_scores_that_are_known():
    sure = 1000 * torch.eye(4).repeat(25, 1)                   # each image of one class for certain, four alike
    assert score(splits(sure[torch.arange(100)])) == pytest.approx((4.0, 0.0), abs=0.2)
    assert score([sure]) == (pytest.approx(4), 0)
    assert score([torch.zeros(50, 7)]) == (pytest.approx(1), 0)
    assert score([sure[:1].expand(50, -1)]) == (pytest.approx(1), 0)


def test_values_are_named_after_the_classifier():
    weight, fake = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)), torch.randn(60, 8)
    names = {
        "inception": "inception_score",
        "inception:clean": "classifier_score_inception_clean",
        "timm:tf_efficientnet_lite0@96": "classifier_score_tf_efficientnet_lite0_96",
        "timm:resnet50.a1_in1k": "classifier_score_resnet50_a1_in1k",
    }
    for name, value in names.items():
        found = metric("inception_score")(fake=fake, classifier=reader(weight, name=name))
        assert set(found) == {value, f"{value}_std", f"{value}_std_error"}
        assert value.isidentifier()


def test_the_order_of_the_images_is_no_matter():
    """A folder's images lie class by class: cut as they lie, each split would hold one class."""
    kinds = 20 * torch.eye(10).repeat_interleave(100, 0)
    found = inception_score(kinds, classifier=reader(torch.eye(10)))
    assert found["inception_score"] == pytest.approx(10, abs=0.7)
    assert found == inception_score(kinds, classifier=reader(torch.eye(10)))
    assert found != inception_score(kinds, classifier=reader(torch.eye(10)), seed=1)


def test_its_standard_error_is_the_scatter_of_sets():
    sets = [inception_score(logits(400, seed=seed), classifier=reader(torch.eye(20))) for seed in range(60)]
    values = np.array([each["inception_score"] for each in sets])
    stated = np.array([each["inception_score_std_error"] for each in sets])
    assert stated.mean() == pytest.approx(values.std(), rel=0.3)


def test_a_score_that_cannot_be_told_is_refused_in_one_line():
    good, with_classes = torch.randn(30, 444), reader(torch.randn(5, 444))
    broken = good.clone()
    broken[2, 3] = float("nan")
    for fake, features, said in (
        (good, extractor("pixels"), "'pixels' have no classifier.*'inception', 'timm:tf_efficientnet_lite0'"),
        (good[:1], with_classes, "1 fake images are too few.*give 20"),
        (broken, with_classes, "fake images are not all finite"),
    ):
        with pytest.raises(EvaluationError, match=said) as caught:
            inception_score(fake, classifier=features)
        assert "\n" not in str(caught.value)


def test_evaluate_scores_images_by_lite0(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    images = open_images("emoji:animals-nature", resolution=32, channels=3).only(np.arange(24))
    features = "timm:tf_efficientnet_lite0@32"
    found = zoo.evaluate(images, images, metrics=["inception_score"], features=features, samples=24)
    name = "classifier_score_tf_efficientnet_lite0_32"
    assert set(found.values) == {name, f"{name}_std", f"{name}_std_error"}
    assert 1 < found[name] < 2.4


# Classes.


def kinds(counts, seed, *, dimensions=6, apart=4.0):
    """Features around a place of its own for each class, and labels, shuffled."""
    chance = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((count,), place) for place, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=chance)]
    rows = torch.randn(len(labels), dimensions, generator=chance) + apart * torch.eye(dimensions)[labels]
    return rows, labels


def given(counts, seed, **options):
    (real, real_labels), (fake, fake_labels) = kinds(counts, seed, **options), kinds(counts, seed + 1, **options)
    return SimpleNamespace(real=real, fake=fake, labels={"real_labels": real_labels, "fake_labels": fake_labels})


def test_intra_fid_is_the_mean_over_classes():
    it = given((40, 60, 50), 0)
    each = [
        frechet_distance(it.real[it.labels["real_labels"] == k], it.fake[it.labels["fake_labels"] == k])["fid"]
        for k in range(3)
    ]
    found = intra_class_distance(it.real, it.fake, **it.labels)
    assert found == pytest.approx({"intra_fid": sum(each) / 3, "intra_fid_worst": max(each)})


def test_classes_that_are_mixed_up_have_a_good_fid_and_a_bad_intra_fid():
    it = given((200, 200), 0)
    swapped = it.labels | {"fake_labels": 1 - it.labels["fake_labels"]}
    assert frechet_distance(it.real, it.fake)["fid"] < 1
    assert intra_class_distance(it.real, it.fake, **it.labels)["intra_fid"] < 1
    assert intra_class_distance(it.real, it.fake, **swapped)["intra_fid"] == pytest.approx(32, rel=0.1)


def test_a_class_with_few_images_is_named(caplog):
    it = given((40, 60, 3), 0)
    intra_class_distance(it.real, it.fake, **it.labels, classes=("cats", "dogs", "mice"))
    (line,) = caplog.messages
    assert line.startswith("Class 'mice' has 3 real and 3 fake images, fewer than the 6 features")
    caplog.clear()
    it = given((40, 100), 0)
    intra_class_distance(it.real, it.fake, **it.labels)
    assert "Class 0 has 40 real and 40 fake images, the largest class 100" in caplog.text
    caplog.clear()
    it = given((50, 60), 0)
    intra_class_distance(it.real, it.fake, **it.labels)
    assert not caplog.messages


def test_a_conditional_model_reaches_the_ceiling_and_a_mixed_one_does_not():
    it = given((150, 100, 50), 0)
    found = conditional_accuracy(it.real, it.fake, **it.labels)
    error = found["conditional_accuracy_std_error"] + found["conditional_accuracy_real_std_error"]
    assert found["conditional_accuracy_real"] > 0.95
    assert abs(found["conditional_accuracy"] - found["conditional_accuracy_real"]) < 2 * error + 1e-9
    chance = it.labels | {"fake_labels": it.labels["fake_labels"][torch.randperm(300)]}
    mixed = conditional_accuracy(it.real, it.fake, **chance)
    assert mixed["conditional_accuracy"] == pytest.approx(1 / 3, abs=0.12)
    assert mixed["conditional_accuracy_real"] == found["conditional_accuracy_real"]


def test_every_class_counts_alike():
    it = given((400, 40), 0)
    wrong = it.fake.clone()
    wrong[it.labels["fake_labels"] == 1] = it.fake[it.labels["fake_labels"] == 0][:40]
    assert conditional_accuracy(it.real, wrong, **it.labels)["conditional_accuracy"] == pytest.approx(0.5, abs=0.03)


def test_it_classifies_real_images_as_well_as_logistic_regression():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score

    images = open_images("emoji", resolution=32, channels=3)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:1200]
    features, labels = extractor("pixels")(images.read(order.tolist())), torch.from_numpy(images.labels)[order]
    learn, look = slice(0, 600), slice(600, 1200)
    theirs = LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000).fit(features[learn], labels[learn])
    expected = balanced_accuracy_score(labels[look], theirs.predict(features[look]))
    found = conditional_accuracy(
        features[learn], features[look], real_labels=labels[learn], fake_labels=labels[look]
    )
    assert found["conditional_accuracy"] > max(0.4, expected - 0.05)
    assert found["conditional_accuracy"] == pytest.approx(found["conditional_accuracy_real"], abs=0.06)


@pytest.mark.parametrize("value", ["conditional_accuracy", "conditional_accuracy_real"])
def test_standard_errors_are_the_scatter_of_sets(value):
    sets = [given((120, 90, 60), seed, apart=1.5) for seed in range(0, 120, 2)]
    found = [conditional_accuracy(each.real, each.fake, **each.labels) for each in sets]
    values, stated = (np.array([each[name] for each in found]) for name in (value, f"{value}_std_error"))
    assert values.std() < stated.mean() * 1.3
    assert stated.mean() < values.std() * 1.8


@pytest.mark.parametrize("function", [intra_class_distance, conditional_accuracy])
def test_unusable_classes_are_refused_in_one_line(function):
    it = given((20, 20), 0)
    names = ("cats", "dogs", "mice")
    for change, said in (
        ({"fake_labels": it.labels["fake_labels"][:5]}, r"40 fake images have labels of shape \[5\]"),
        ({"real_labels": it.labels["real_labels"].float()}, "40 real images have labels"),
        ({"real_labels": it.labels["real_labels"] - 1}, "from 0"),
        ({"fake_labels": it.labels["fake_labels"] * 2}, r"Class '(dogs|mice)' has (0|20) real and (0|20) fake images"),
    ):
        with pytest.raises(EvaluationError, match=said) as caught:
            function(it.real, it.fake, **it.labels | change, classes=names)
        assert "\n" not in str(caught.value)
    broken = it.fake.clone()
    broken[0] = float("inf")
    with pytest.raises(EvaluationError, match="fake images are not all finite"):
        function(it.real, broken, **it.labels)
    with pytest.raises(EvaluationError, match="1 fake images are too few"):
        function(it.real, it.fake[:1], real_labels=it.labels["real_labels"], fake_labels=it.labels["fake_labels"][:1])


def test_one_class_alone_is_nothing_to_tell_apart():
    it = given((30,), 0)
    with pytest.raises(EvaluationError, match="All images are of one class"):
        conditional_accuracy(it.real, it.fake, **it.labels)


def test_evaluate_hands_over_the_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    images = open_images("emoji:animals-nature,food-drink", resolution=16, channels=3)
    names = ["intra_fid", "conditional_accuracy"]
    found = zoo.evaluate(images, images, metrics=names, features="pixels", samples=len(images), force=True)
    assert found["intra_fid"] == pytest.approx(0, abs=1e-6)
    assert found["conditional_accuracy"] > found["conditional_accuracy_real"] > 0.5      # it learned these very images
    with pytest.raises(EvaluationError, match="290 real and 290 fake images are too few for metric 'intra_fid'"):
        zoo.evaluate(images, images, metrics=["intra_fid"], features="pixels", samples=len(images))
    for other, said in (
        ("emoji:animals-nature", "emoji:animals-nature has no classes, which a metric asks for"),
        ("emoji:animals-nature,food-drink,objects", "the fakes have 2 classes, .* 3: give data of the same classes"),
    ):
        with pytest.raises(EvaluationError, match=said):
            zoo.evaluate(images, other, metrics=names, features="pixels", force=True)
