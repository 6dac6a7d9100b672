"""CMMD against its definition, and what its standard error says."""

import numpy as np
import pytest
import torch

from zoo.errors import EvaluationError
from zoo.metrics.kernel import clip_distance
from zoo.metrics.names import metric


def features(n, dimensions, seed, *, shift=0.0):
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed)) + shift


def direct(real, fake):
    """The authors' estimate (Gretton et al., 2012, eq. 5) and the paper's unbiased one, by their double sums."""
    x, y = (each.double().numpy() for each in (real, fake))
    x, y = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, y))
    kernel = lambda a, b: np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (2 * 10**2))  # noqa: E731
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    apart = [(each.sum() - np.trace(each)) / (len(each) * (len(each) - 1)) for each in (xx, yy)]
    return 1000 * (xx.mean() + yy.mean() - 2 * xy.mean()), 1000 * (sum(apart) - 2 * xy.mean())


def test_it_is_the_discrepancy_under_the_papers_kernel(monkeypatch):
    real, fake = features(30, 8, 1), features(41, 8, 2, shift=0.4)
    biased, unbiased = direct(real, fake)
    for rows in (2048, 7):
        monkeypatch.setattr("zoo.metrics.kernel.ROWS", rows)
        found = clip_distance(real, fake)
        assert found["cmmd"] == pytest.approx(biased, rel=1e-9)
        assert found["cmmd_unbiased"] == pytest.approx(unbiased, rel=1e-8)


def test_of_two_points_it_has_its_closed_form():
    # Everything at one of two corners: |x - y|^2 = 2, so the squared discrepancy is 2 - 2 exp(-2 / 200).
    first, second = torch.eye(2)[:1].expand(5, -1), torch.eye(2)[1:].expand(4, -1)
    found = clip_distance(first, second)
    expected = 1000 * 2 * (1 - np.exp(-0.01))
    assert found == {"cmmd": pytest.approx(expected), "cmmd_unbiased": pytest.approx(expected),
                     "cmmd_std_error": pytest.approx(0, abs=1e-9)}  # fmt: skip


def test_lengths_of_features_do_not_count():
    real, fake = features(20, 8, 1), features(20, 8, 2)
    lengths = torch.linspace(0.1, 9, 20)[:, None]
    assert clip_distance(real, fake * lengths) == pytest.approx(clip_distance(real, fake), abs=1e-6)
    assert clip_distance(real, torch.zeros(3, 8))["cmmd"] > 0      # no direction: not NaN


@pytest.mark.parametrize("shift", [0.0, 0.3], ids=["equal-distributions", "different-distributions"])
def test_the_unbiased_one_is_unbiased_and_states_its_own_error(shift):
    drawn = [clip_distance(features(40, 4, 2 * i), features(50, 4, 2 * i + 1, shift=shift)) for i in range(300)]
    unbiased = np.array([each["cmmd_unbiased"] for each in drawn])
    noise = 4 * unbiased.std() / 300**0.5
    assert np.mean([each["cmmd_std_error"] for each in drawn]) == pytest.approx(unbiased.std(), rel=0.35)
    if shift:
        assert unbiased.mean() > noise
    else:
        assert unbiased.mean() == pytest.approx(0, abs=noise)
        assert np.mean([each["cmmd"] for each in drawn]) == pytest.approx(10 / 40 + 10 / 50, rel=0.1)


def test_it_is_a_metric_by_name():
    real = features(20, 8, 1)
    assert set(metric("cmmd")(real, real)) == {"cmmd", "cmmd_unbiased", "cmmd_std_error"}
    assert metric("cmmd")(real, real)["cmmd"] == pytest.approx(0, abs=1e-9)
    with pytest.raises(EvaluationError, match="give 3 of each"):
        clip_distance(real, real[:2])
