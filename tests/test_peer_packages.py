"""Distances agree with pytorch-fid and clean-fid on the same features; other packages are met in test_metrics."""

import numpy as np
import pytest
import torch

from zoo.metrics.frechet import frechet_distance
from zoo.metrics.kernel import kernel_distance

# Both call scipy's sqrtm in a way that it announces to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*disp.*:DeprecationWarning")


def features(n, dimensions, seed, *, scale=1.0, shift=0.0):
    """Rectified, correlated Gaussians as pooled features are, in float64 so that all means are of the same numbers."""
    chance = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(99)) / dimensions**0.5
    return (torch.randn(n, dimensions, generator=chance) @ mixing * scale + shift).relu().double()


def pytorch_fid(real, fake):
    from pytorch_fid.fid_score import calculate_frechet_distance

    return calculate_frechet_distance(*statistics(real), *statistics(fake))


def clean_fid(real, fake):
    from cleanfid.fid import fid_from_feats

    return fid_from_feats(real.numpy(), fake.numpy())


def statistics(side):
    """Mean and covariance as pytorch-fid computes them of the features of a folder."""
    return np.mean(side.numpy(), axis=0), np.cov(side.numpy(), rowvar=False)


@pytest.mark.parametrize("theirs", [pytorch_fid, clean_fid])
@pytest.mark.parametrize(("reals", "fakes", "dimensions"), [(900, 700, 48), (2000, 1500, 128)])
def test_fid_agrees(theirs, reals, fakes, dimensions):
    real, fake = features(reals, dimensions, 1), features(fakes, dimensions, 2, scale=1.2, shift=0.05)
    assert frechet_distance(real, fake)["fid"] == pytest.approx(float(theirs(real, fake)), rel=1e-6)


def test_kid_agrees_with_clean_fid_within_its_subsets_noise(monkeypatch):
    from cleanfid.fid import kernel_distance as theirs

    monkeypatch.setattr(np.random, "choice", np.random.RandomState(0).choice)      # it draws from the global state
    real, fake = features(1500, 32, 1), features(1300, 32, 2, scale=1.2)
    found = kernel_distance(real, fake, subsets=50, subset_size=500)
    noise = found["kid_subset_std"] / 50**0.5
    drawn = theirs(real.numpy(), fake.numpy(), num_subsets=50, max_subset_size=500)
    assert found["kid_subset_mean"] == pytest.approx(drawn, abs=6 * noise)
    assert abs(found["kid"] - drawn) < 6 * noise
    assert 6 * noise < 0.2 * found["kid"]


def test_kid_of_all_images_is_clean_fids_whole():
    from cleanfid.fid import kernel_distance as theirs

    real, fake = features(300, 32, 1), features(300, 32, 2, scale=1.2)      # a subset of all 300 is no choice
    assert kernel_distance(real, fake)["kid"] == pytest.approx(theirs(real.numpy(), fake.numpy(), 2, 300), rel=1e-6)
