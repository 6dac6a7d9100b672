"""Vendi score and different bins against closed forms."""

from math import exp, log

import pytest
import torch
from sklearn.datasets import load_digits

from zoo.errors import EvaluationError
from zoo.metrics.bins import Bins, different_bins, jensen_shannon
from zoo.metrics.names import metric
from zoo.metrics.vendi import vendi, vendi_score


def clusters(shares, n, seed, *, dimensions=8):
    """Features [n, d] around one corner of a simplex for each share, as many as the shares say, shuffled."""
    chance = torch.Generator().manual_seed(seed)
    counts = [round(share * n) for share in shares]
    rows = [10 * torch.eye(dimensions)[i] + 0.1 * torch.randn(count, dimensions, generator=chance)
            for i, count in enumerate(counts)]  # fmt: skip
    return torch.cat(rows)


@pytest.mark.parametrize("n", [2, 7, 40])
def test_vendi_of_orthogonal_images_is_their_number(n):
    assert vendi_score(3 * torch.eye(n)) == pytest.approx(n, rel=1e-9)
    assert vendi_score(torch.eye(n, 2 * n)) == pytest.approx(n, rel=1e-9)


def test_vendi_of_identical_images_is_one():
    row = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    assert vendi_score(row.expand(50, -1)) == pytest.approx(1, abs=1e-6)
    assert vendi_score(torch.zeros(5, 3)) == pytest.approx(1, abs=1e-6)      # alike, though without a direction
    assert vendi_score(row) == pytest.approx(1, abs=1e-6)


def test_vendi_of_unequal_groups_is_the_exponential_of_their_entropy():
    rows = torch.cat([torch.eye(3)[0].expand(10, -1), torch.eye(3)[1].expand(30, -1)])
    entropy = -(0.25 * log(0.25) + 0.75 * log(0.75))
    assert vendi_score(rows) == pytest.approx(exp(entropy), rel=1e-9)


def test_vendi_of_two_images_at_an_angle():
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)      # eigenvalues of K / 2: 0.8 and 0.2
    assert vendi_score(rows) == pytest.approx(exp(-(0.8 * log(0.8) + 0.2 * log(0.2))), rel=1e-9)


def test_vendi_does_not_depend_on_which_matrix_is_decomposed():
    rows = torch.randn(30, 29, generator=torch.Generator().manual_seed(1))
    wide = torch.cat([rows, torch.zeros(30, 40)], 1)
    assert vendi_score(rows) == pytest.approx(vendi_score(wide), rel=1e-9)


def test_bins_of_equal_sets_do_not_differ():
    real = clusters([0.25] * 4, 400, 0)
    assert different_bins(real, real, bins=4) == {"ndb": 0, "ndb_missing": 0, "js": 0}


def test_bins_of_one_distribution_differ_by_chance_alone():
    chance = torch.Generator().manual_seed(0)
    real, fake = torch.randn(4000, 4, generator=chance), torch.randn(4000, 4, generator=chance)
    found = different_bins(real, fake, bins=100)
    # 100 tests at the level 0.05; those of reals that their own centres were fitted to differ a little more often.
    assert found["ndb"] < 0.15
    assert found["js"] < 0.02


def test_a_missing_cluster_is_found_with_its_share():
    real, fake = clusters([0.4, 0.3, 0.2, 0.1], 1000, 0), clusters([0.5, 0.3, 0.2, 0.0], 1000, 1)
    found = different_bins(real, fake, bins=4)
    assert found["ndb"] == 0.5      # the one that is missing, and the one that has its place
    assert found["ndb_missing"] == pytest.approx(0.1)
    assert found["js"] == pytest.approx(jensen_shannon(torch.tensor([0.4, 0.3, 0.2, 0.1]).double(),
                                                       torch.tensor([0.5, 0.3, 0.2, 0.0]).double()))  # fmt: skip


def test_jensen_shannon_of_sets_apart_is_log_two():
    assert jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == pytest.approx(log(2))
    assert jensen_shannon(torch.tensor([0.3, 0.7]), torch.tensor([0.3, 0.7])) == pytest.approx(0, abs=1e-6)


def test_the_test_of_a_bin_is_the_two_proportion_z_test():
    # 60 of 100 against 45 of 100: pooled 0.525, error 0.07062, z = 2.124: beyond 1.960, but not beyond 2.576.
    cut = Bins(torch.zeros(2, 1).double(), torch.tensor([0.6, 0.4]).double(), 100)
    shares = torch.tensor([0.45, 0.55]).double()
    assert cut.different(shares, 100).tolist() == [-1, 1]
    assert cut.different(shares, 100, alpha=0.01).tolist() == [0, 0]


def test_fewer_distinct_images_than_bins():
    real = torch.eye(3).repeat(20, 1)
    assert len(Bins.of(real, 10).centres) == 3
    assert different_bins(real, real[:30])["ndb"] == 0


def test_they_are_metrics_by_name():
    real, fake = clusters([0.5, 0.5], 60, 0), clusters([1.0], 40, 1)
    assert set(metric("ndb")(real, fake)) == {"ndb", "ndb_missing", "js"}
    values = metric("vendi")(real, fake)
    assert values["vendi"] < 1.1 < values["vendi_real"]
    with pytest.raises(EvaluationError, match="give 20 of each"):
        different_bins(real, fake[:19])
    with pytest.raises(EvaluationError, match="give 2 of each"):
        vendi(real, fake[:1])


@pytest.mark.parametrize("digit", range(10))
def test_bins_tell_which_digit_is_missing(digit):
    """Of 1,797 handwritten digits half are real; the others without one digit leave just its share out."""
    pixels, labels = (torch.from_numpy(each) for each in load_digits(return_X_y=True))
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    real, others = order[:900], order[900:]
    whole = different_bins(pixels[real], pixels[others])
    fakes = others[labels[others] != digit]
    found = different_bins(pixels[real], pixels[fakes])
    share = float((labels[real] == digit).double().mean())      # about a tenth
    assert whole["ndb_missing"] < 0.03
    assert abs(found["ndb_missing"] - share) < 0.03
    assert found["js"] > 1.8 * whole["js"]
    cut = Bins.of(pixels[real].double(), 90)
    missing = cut.different(cut.filled(pixels[fakes]), len(fakes)) < 0
    of_that = [home for home in range(len(cut.centres)) if missing[home]]
    homes = torch.cdist(pixels[real].double(), cut.centres).argmin(1)
    inside = torch.isin(homes, torch.tensor(of_that))
    assert (labels[real][inside] == digit).double().mean() > 0.7      # the bins that miss images are that digit's
