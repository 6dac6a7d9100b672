"""The Frechet distance extrapolated to infinitely many fakes, on Gaussians whose true distance is known."""

import pytest
import torch

from zoo.errors import EvaluationError
from zoo.metrics.extrapolated import Line, extrapolated_frechet_distance, subset_sizes
from zoo.metrics.frechet import frechet_distance
from zoo.metrics.names import metric

DIMENSIONS = 32
SPREAD = torch.linspace(0.2, 2, DIMENSIONS).double()      # standard deviations of the reals, axis by axis


def gaussian(n, seed, *, scale=1.0, shift=0.0):
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(n, DIMENSIONS, generator=chance, dtype=torch.float64) * SPREAD * scale + shift


@pytest.fixture(scope="module")
def real():
    return gaussian(60_000, 1)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.1, 0.03)], ids=["equal", "different"])
@pytest.mark.parametrize("fakes", [640, 2000])
def test_it_is_much_nearer_to_the_truth_than_fid(real, fakes, scale, shift):
    truth = float((SPREAD * (scale - 1)).square().sum()) + DIMENSIONS * shift**2      # the covariances commute
    sets = [gaussian(fakes, seed, scale=scale, shift=shift) for seed in range(10, 18)]
    plain = torch.tensor([frechet_distance(real, fake)["fid"] for fake in sets]).mean()
    found = torch.tensor([extrapolated_frechet_distance(real, fake)["fid_infinity"] for fake in sets]).mean()
    assert plain > truth
    assert abs(found - truth) < 0.25 * (plain - truth)


def test_its_standard_error_shrinks_with_the_fakes_and_covers_the_truth(real):
    few, many = (extrapolated_frechet_distance(real, gaussian(n, 10)) for n in (500, 8000))
    assert 0 < many["fid_infinity_std_error"] < 0.5 * few["fid_infinity_std_error"]
    assert abs(few["fid_infinity"]) < 6 * few["fid_infinity_std_error"]


def test_the_line_and_its_error_are_those_of_least_squares():
    from scipy.stats import linregress

    x = torch.tensor([0.1, 0.2, 0.4, 0.7, 1.0]).double()
    y = 3 + 2 * x + torch.tensor([0.1, -0.2, 0.05, 0.1, -0.05])
    theirs, ours = linregress(x.numpy(), y.numpy()), Line.through(x, y)
    assert ours.intercept == pytest.approx(theirs.intercept)
    assert ours.std_error == pytest.approx(theirs.intercept_stderr)


def test_subsets_are_those_of_dgm_eval():
    assert subset_sizes(50_000)[:2] == [5000, 8214]
    assert subset_sizes(50_000)[-1] == 50_000
    assert subset_sizes(1000)[0] == 100
    assert len(set(subset_sizes(30))) == len(subset_sizes(30)) == 15


def test_the_seed_draws_the_subsets(real):
    fake = gaussian(300, 10)
    first, again, other = (metric("fid_infinity")(real, fake, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_too_few_fakes_are_refused_with_advice(real):
    with pytest.raises(EvaluationError, match="give 30 of each"):
        extrapolated_frechet_distance(real, gaussian(29, 10))
    with pytest.raises(EvaluationError, match=r"take metrics 'kid'.*give 4440 of each"):
        metric("fid_infinity").check("fid_infinity", 9000, 1000, 444)
