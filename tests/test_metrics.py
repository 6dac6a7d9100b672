"""Metrics on features agree with the packages that others use, and behave as their definitions say."""

import importlib
import sys

import numpy as np
import pytest
import torch

from zoo import registry
from zoo.errors import EvaluationError, PluginError, UnknownName
from zoo.metrics.frechet import frechet_distance, nuclear_norm
from zoo.metrics.kernel import kernel_distance
from zoo.metrics.manifold import density_coverage, precision_recall
from zoo.metrics.names import extractor, metric, metric_names


def features(n, dimensions, seed, *, scale=1.0, shift=0.0):
    """Rectified, correlated Gaussians: like pooled features of a network, not like white noise."""
    chance = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(99)) / dimensions**0.5
    return (torch.randn(n, dimensions, generator=chance) @ mixing * scale + shift).relu()


def fidelity_fid(real, fake):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    pair = [fid_features_to_statistics(each.double()) for each in (real, fake)]
    return fid_statistics_to_metric(*pair, verbose=False)["frechet_inception_distance"]


@pytest.mark.parametrize(
    ("reals", "fakes", "dimensions"),
    [(500, 400, 64), (60, 400, 64), (400, 60, 64), (50, 40, 64), (64, 65, 64)],
    ids=["full-rank", "few-real", "few-fake", "few-of-both", "as-many-as-dimensions"],
)
def test_fid_agrees_with_torch_fidelity(reals, fakes, dimensions):
    real, fake = features(reals, dimensions, 1), features(fakes, dimensions, 2, scale=1.3, shift=0.1)
    assert frechet_distance(real, fake)["fid"] == pytest.approx(fidelity_fid(real, fake), rel=1e-6)


def test_fid_agrees_with_torchmetrics():
    from torchmetrics.image.fid import _compute_fid

    real, fake = features(500, 32, 1).double(), features(700, 32, 2, scale=1.2).double()
    expected = _compute_fid(real.mean(0), real.T.cov(), fake.mean(0), fake.T.cov())
    assert frechet_distance(real, fake)["fid"] == pytest.approx(float(expected), rel=1e-6)


def test_fid_of_scaled_features_has_its_closed_form():
    real = features(300, 16, 3).double()                # y = 2x + 1 has the covariance 4 S, so tr sqrt(S 4S) = 2 tr S
    shift = (2 * real + 1).mean(0) - real.mean(0)
    expected = shift.square().sum() + real.T.cov().trace()
    assert frechet_distance(real, 2 * real + 1)["fid"] == pytest.approx(float(expected), rel=1e-10)


def test_fid_of_singular_covariances():
    real, fake = features(300, 24, 4), features(300, 24, 5, scale=1.5)
    padded = [torch.cat([each, each[:, :8], torch.full((300, 4), 3.0)], 1) for each in (real, fake)]
    assert frechet_distance(*padded)["fid"] == pytest.approx(fidelity_fid(*padded), rel=1e-6)
    assert frechet_distance(padded[0], padded[0])["fid"] == pytest.approx(0, abs=1e-7)


def direct_kid(real, fake):
    x, y = real.double().numpy(), fake.double().numpy()
    d, n, m = x.shape[1], len(x), len(y)
    kernel = lambda a, b: (a @ b / d + 1) ** 3  # noqa: E731
    within = [
        sum(kernel(side[i], side[j]) for i in range(k) for j in range(k) if i != j) / (k * (k - 1))
        for side, k in ((x, n), (y, m))
    ]
    return sum(within) - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_kid_is_the_unbiased_estimate_over_all_pairs():
    real, fake = features(30, 8, 1), features(41, 8, 2, scale=1.2)
    found = kernel_distance(real, fake)
    assert found["kid"] == pytest.approx(direct_kid(real, fake), rel=1e-9)
    assert set(found) == {"kid", "kid_std_error"}       # too few images for subsets of 1000


def test_kid_does_not_depend_on_how_the_kernel_matrix_is_cut(monkeypatch):
    real, fake = features(50, 8, 1), features(70, 8, 2)
    whole = kernel_distance(real, fake)
    monkeypatch.setattr("zoo.metrics.kernel.ROWS", 7)
    assert kernel_distance(real, fake) == pytest.approx(whole, rel=1e-9)


def test_kid_agrees_with_torch_fidelity():
    from torch_fidelity.metric_kid import kid_features_to_metric

    real, fake = features(1500, 64, 1), features(1200, 64, 2, scale=1.2)
    settings = {"kid_subsets": 50, "kid_subset_size": 500, "kid_kernel": "poly", "kid_kernel_poly_degree": 3,
                "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1, "rng_seed": 1, "verbose": False}  # fmt: skip
    theirs = kid_features_to_metric(fake.double(), real.double(), **settings)
    mean, std = theirs["kernel_inception_distance_mean"], theirs["kernel_inception_distance_std"]
    ours = kernel_distance(real, fake, subsets=50, subset_size=500)
    assert ours["kid_subset_mean"] == pytest.approx(mean, abs=4 * std / 50**0.5)
    assert ours["kid_subset_std"] == pytest.approx(std, rel=0.5)
    assert ours["kid"] == pytest.approx(mean, abs=std)
    assert kernel_distance(real, fake, subsets=5, subset_size=500, seed=1) != kernel_distance(
        real, fake, subsets=5, subset_size=500, seed=2
    )


@pytest.mark.parametrize("shift", [0.0, 0.3], ids=["equal-distributions", "different-distributions"])
def test_kid_is_unbiased_and_states_its_own_error(shift):
    drawn = [kernel_distance(features(60, 4, 2 * i), features(80, 4, 2 * i + 1, shift=shift)) for i in range(300)]
    values = np.array([each["kid"] for each in drawn])
    stated = np.array([each["kid_std_error"] for each in drawn])
    assert stated.mean() == pytest.approx(values.std(), rel=0.35)
    noise = 4 * values.std() / 300**0.5
    if shift:
        assert values.mean() > noise
    else:
        assert values.mean() == pytest.approx(0, abs=noise)


def test_precision_and_recall_agree_with_torch_fidelity_and_prdc():
    from prdc import compute_prdc
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, fake = features(400, 32, 1).double(), features(300, 32, 2, scale=0.8, shift=0.1).double()
    ours = precision_recall(real, fake)
    settings = {"prc_neighborhood": 3, "prc_batch_size": 128, "save_cpu_ram": False, "verbose": False}
    theirs = prc_features_to_metric(fake, real, **settings)
    assert ours == pytest.approx({name: theirs[name] for name in ("precision", "recall")}, abs=1e-6)
    also = compute_prdc(real.numpy(), fake.numpy(), nearest_k=3)
    assert ours == {name: pytest.approx(also[name], abs=1e-12) for name in ("precision", "recall")}
    assert 0.1 < ours["recall"] < ours["precision"] < 1


def test_density_and_coverage_agree_with_prdc(monkeypatch):
    from prdc import compute_prdc

    real, fake = features(300, 16, 1).double(), features(400, 16, 2, scale=0.9).double()
    theirs = compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
    monkeypatch.setattr("zoo.metrics.manifold.ROWS", 77)
    ours = density_coverage(real, fake)
    assert ours == {name: pytest.approx(theirs[name], abs=1e-12) for name in ("density", "coverage")}
    assert 0.05 < ours["coverage"] < 1


def test_copies_of_the_data_have_full_precision_and_recall():
    real = features(200, 16, 1)
    assert precision_recall(real, real.flip(0)) == {"precision": 1, "recall": 1}


def test_a_collapsed_model_has_no_recall():
    real = features(200, 16, 1)
    assert precision_recall(real, real[:1].expand(150, -1)) == {"precision": 1, "recall": 1 / 200}
    assert density_coverage(real, real[:1].expand(150, -1))["coverage"] < 0.2


def test_fakes_far_from_the_data_have_neither():
    real = features(200, 16, 1)
    far = real + 100
    assert precision_recall(real, far) == {"precision": 0, "recall": 0}
    assert density_coverage(real, far) == {"density": 0, "coverage": 0}


@pytest.mark.parametrize("function", [frechet_distance, kernel_distance, precision_recall, density_coverage])
def test_unusable_features_are_refused_in_one_line(function):
    good = features(20, 4, 1)
    broken = good.clone()
    broken[3, 2] = float("nan")
    for real, fake, said in (
        (good, features(20, 5, 1), r"\[20, 4\] and \[20, 5\]"),
        (good, good[:1], "20 real and 1 fake"),
        (good, broken, "fake images are not all finite"),
        (broken, good, "real images are not all finite"),
    ):
        with pytest.raises(EvaluationError, match=said) as caught:
            function(real, fake)
        assert "\n" not in str(caught.value)


def test_unknown_metric_names_what_is_near_and_possible():
    with pytest.raises(UnknownName, match=r"Did you mean 'precision_recall'\?.*fid, .*kid, "):
        metric("precision-recall")


PLUGIN = '''
from zoo.plugin import hookimpl

@hookimpl
def zoo_metrics():
    gap = "tiny_metrics_code:mean_gap"
    return {"mean_gap": gap, "fid": gap, "gone": "tiny_metrics_code:gone"}

@hookimpl
def zoo_features():
    return {"shade": "tiny_metrics_code:extractor"}
'''
CODE = '''
def mean_gap(real, fake):
    return {"mean_gap": (real.mean() - fake.mean()).abs()}

def extractor(argument, device):
    import torch
    from zoo.metrics.features import FeatureExtractor

    def network(images):
        return images.float().mean((2, 3)) * float(argument)

    return FeatureExtractor(f"shade:{argument}", "0" * 64, "none", 3, network, torch.device(device or "cpu"))
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A distribution that adds metrics, found as any installed one is."""
    facts = tmp_path / "tiny_metrics-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-metrics\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[zoo]\ntiny = tiny_metrics\n")
    (tmp_path / "tiny_metrics.py").write_text(PLUGIN)
    (tmp_path / "tiny_metrics_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    registry.refresh()
    yield
    monkeypatch.undo()
    for name in ("tiny_metrics", "tiny_metrics_code"):
        sys.modules.pop(name, None)
    registry.refresh()


@pytest.mark.usefixtures("plugin")
def test_a_plugin_adds_features():
    grey = torch.full((2, 1, 4, 4), 10, dtype=torch.uint8)
    assert extractor("shade:2")(grey).tolist() == [[20, 20, 20]] * 2


@pytest.mark.usefixtures("plugin")
def test_a_plugin_adds_metrics_but_replaces_none():
    real, fake = features(20, 4, 1), features(20, 4, 2, shift=1.0)
    gap = float((real.mean() - fake.mean()).abs())
    assert metric("mean_gap")(real, fake) == {"mean_gap": pytest.approx(gap)}
    assert "mean_gap" in metric_names()
    assert metric("fid")(real, fake).keys() == {"fid"}
    with pytest.raises(PluginError, match=r"'gone'.*does not import"):
        metric("gone")


@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-7, 1e-12, 0.0])
def test_the_quick_way_to_a_sum_of_singular_values_is_left_where_it_is_not_exact(smallest):
    chance = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(60, 60, generator=chance, dtype=torch.float64)).Q for _ in range(2))
    values = torch.cat([torch.ones(5), torch.full((55,), smallest)]).double()
    matrix = left * values @ right
    for each in (matrix, matrix[:40], matrix[:, :40]):
        assert float(nuclear_norm(each)) == pytest.approx(float(torch.linalg.svdvals(each).sum()), rel=2e-9)
