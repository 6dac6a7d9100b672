"""Keyed noise, and the differentiable changes that critics see images through."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.noise import Noise, key
from zoo.training.augmentation import check
from zoo.training.augmentation.diffaugment import PARTS, color, cutout, diffaugment, translation


def pictures(n: int = 6, channels: int = 3, size: int = 16, **options) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1), **options) * 2 - 1


@pytest.mark.parametrize("part", sorted(PARTS))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_part_keeps_the_shape_and_changes_the_images(part, channels):
    images = pictures(channels=channels)
    changed = diffaugment(images, [part], Noise(0))
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert not torch.equal(changed, images)
    assert torch.equal(changed, diffaugment(images, [part], Noise(0)))
    assert not torch.equal(changed, diffaugment(images, [part], Noise(1)))


@pytest.mark.parametrize("part", sorted(PARTS))
def test_each_part_is_differentiable_twice(part):
    images = pictures(2, size=5, dtype=torch.float64).requires_grad_(True)

    def through(x):
        return diffaugment(x, [part], Noise(3)).pow(3)

    assert torch.autograd.gradcheck(through, (images,))
    assert torch.autograd.gradgradcheck(through, (images,))


def test_parts_follow_one_another_in_the_given_order():
    images = pictures()
    noise = Noise(5)
    expected = cutout(color(images, noise), noise)
    assert torch.equal(diffaugment(images, ["color", "cutout"], Noise(5)), expected)
    assert torch.equal(diffaugment(images, [], Noise(5)), images)


def test_color_leaves_alpha_alone_and_keeps_grey_grey():
    images = pictures(channels=4)
    assert torch.equal(color(images, Noise(0))[:, 3:], images[:, 3:])
    grey = pictures(channels=1).expand(-1, 3, -1, -1)
    changed = color(grey, Noise(0))
    assert torch.allclose(changed, changed[:, :1].expand_as(changed), atol=1e-6)


def test_color_shifts_a_flat_picture_by_its_brightness_alone():
    strengths = Noise(7).uniform(4, 3, 1, 1, 1)
    changed = color(torch.full((4, 3, 8, 8), 0.25), Noise(7))
    assert torch.allclose(changed[:, 0, 0, 0], 0.25 + strengths[:, 0].flatten() - 0.5, atol=1e-6)
    assert float(changed.std((1, 2, 3)).max()) < 1e-6


def test_translation_moves_exactly_and_repeats_the_edge():
    images, reach = pictures(32), 2                           # an eighth of 16
    noise = Noise(11)
    down = noise.integers(2 * reach + 1, 32) - reach
    right = noise.integers(2 * reach + 1, 32) - reach
    moved = translation(images, Noise(11))
    assert {int(value) for value in down} == {-2, -1, 0, 1, 2}
    for n in range(32):
        for row in range(16):
            source = min(max(row + int(down[n]), 0), 15)
            columns = [min(max(column + int(right[n]), 0), 15) for column in range(16)]
            assert torch.equal(moved[n, :, row], images[n, :, source, columns])


def test_cutout_greys_a_square_of_at_most_half_the_size():
    changed = cutout(torch.ones(200, 3, 16, 16), Noise(2))
    assert set(changed.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(changed[:, 0], changed[:, 1])
    area = (changed[:, 0] == 0).float().mean((1, 2))
    assert 0.24 < float(area.max()) <= 0.25                   # a centre inside loses nothing at the border
    assert 0.05 < float(area.min()) < 0.12                    # one at a corner loses three quarters
    for hidden in (changed[:20, 0] == 0):
        rows, columns = hidden.any(1), hidden.any(0)
        assert torch.equal(hidden, rows[:, None] & columns[None, :])
        assert int(rows.sum()) <= 8


def test_reals_and_fakes_of_one_step_are_changed_differently():
    images, noise = pictures(), Noise(0)
    parts = ("color", "translation", "cutout")
    assert not torch.equal(diffaugment(images, parts, noise), diffaugment(images, parts, noise))


def test_an_unknown_part_is_refused():
    with pytest.raises(zoo.ZooError, match=r"'colour'.*Did you mean 'color'.*cutout"):
        check(["translation", "colour"])


@pytest.mark.parametrize("draw", ["normal", "uniform", "integers"])
def test_shares_interleave_to_the_whole_batch(draw):
    def rows(n: int, **share):
        noise = Noise(key("seed", 3), **share)
        make = getattr(noise, draw)
        first, second = (make(1000, n, 2) if draw == "integers" else make(n, 2) for _ in range(2))
        return torch.cat([first, second], dim=1), noise.number()

    whole, number = rows(12)
    for shares in (2, 3, 4):
        found = torch.empty_like(whole)
        for share in range(shares):
            found[share::shares], other = rows(12 // shares, share=share, shares=shares)
            assert other == number                            # what all shares agree on
        assert torch.equal(found, whole)
    assert not torch.equal(whole[0], whole[1])


def test_augmentation_of_shares_is_that_of_the_whole_batch():
    images, parts = pictures(8), ("color", "translation", "cutout")
    whole = diffaugment(images, parts, Noise(4))
    for share in range(2):
        part = diffaugment(images[share::2], parts, Noise(4, share=share, shares=2))
        assert torch.allclose(part, whole[share::2], atol=1e-6)


def test_keys_depend_on_every_part_and_on_the_order():
    keys = {key(), key(1), key("1"), key(1, 2), key(2, 1), key(12), key("a", "b"), key("ab")}
    assert len(keys) == 8
    assert all(0 <= value < 2**63 for value in keys)
    assert key("sample", 0) == key("sample", 0)
