"""The Monge inception distance against closed forms and optimal transport solved otherwise."""

import numpy as np
import pytest
import torch

from zoo.errors import EvaluationError
from zoo.metrics.names import metric
from zoo.metrics.sliced import monge_distance, transport


def gaussian(n, dimensions, seed, *, scale=1.0):
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def test_of_a_shift_it_is_three_times_the_squared_length():
    # Along u the distance is (u.m)^2, whose mean over the sphere is |m|^2 / d.
    real, shift = gaussian(100, 16, 1), gaussian(1, 16, 2)
    assert monge_distance(real, real)["mind"] == 0
    expected = 3 * float(shift.square().sum())
    assert monge_distance(real, real + shift)["mind"] == pytest.approx(expected, rel=0.1)      # 1,000 directions
    assert monge_distance(real, real + shift, directions=20_000)["mind"] == pytest.approx(expected, rel=0.03)


def test_of_two_gaussians_it_has_its_closed_form():
    # N(0, I) and N(m, s^2 I): along u the distance is (u.m)^2 + (s - 1)^2.
    shift = torch.full((8,), 0.5).double()
    found = monge_distance(gaussian(5000, 8, 1), gaussian(5000, 8, 2, scale=1.5) + shift)["mind"]
    assert found == pytest.approx(3 * (float(shift.square().sum()) + 8 * 0.5**2), rel=0.06)


def test_a_scaled_set_differs_along_every_direction_by_its_second_moment():
    real = gaussian(100, 4, 1)                    # sorted values are doubled: W2^2 = mean of (u.x)^2
    found = monge_distance(real, 2 * real, directions=20_000)["mind"]
    assert found == pytest.approx(3 * float(real.square().sum(1).mean()), rel=0.03)


@pytest.mark.parametrize(("n", "m"), [(7, 7), (6, 9), (5, 13), (1, 4), (40, 17)])
def test_transport_is_that_of_the_best_plan(n, m):
    """The least cost over all plans, as an assignment of least common multiples of the images."""
    from scipy.optimize import linear_sum_assignment

    x, y = gaussian(n, 3, 1), gaussian(m, 3, 2) + 0.3
    copies = np.lcm(n, m)
    for column, found in enumerate(transport(x, y)):
        first, second = (np.repeat(each[:, column].numpy(), copies // len(each)) for each in (x, y))
        cost = (first[:, None] - second[None]) ** 2
        assert float(found) == pytest.approx(cost[linear_sum_assignment(cost)].mean())


def test_unequal_numbers_change_little():
    real = gaussian(3000, 8, 1)
    whole, part = (monge_distance(real, gaussian(n, 8, 2, scale=1.5))["mind"] for n in (3000, 2000))
    assert part == pytest.approx(whole, rel=0.1)


def test_it_is_a_metric_by_name_with_a_seed():
    real, fake = gaussian(50, 8, 1), gaussian(40, 8, 2, scale=1.2)
    first, again, other = (metric("mind")(real, fake, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first["mind"] == pytest.approx(other["mind"], rel=0.1)
    assert first == pytest.approx(metric("mind")(fake, real, seed=1))
    with pytest.raises(EvaluationError, match="give 2 of each"):
        monge_distance(real, fake[:1])
