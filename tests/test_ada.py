"""ADA's changes against closed forms: what each does at a given strength, to whom, how often, twice differentiable."""

from __future__ import annotations

from math import log2, pi

import pytest
import torch

from zoo.noise import Noise
from zoo.training.augmentation.ada import SETS, ada, band_gains, filtering, grain, hole
from zoo.training.augmentation.colour import colour, colour_map, painted
from zoo.training.augmentation.filters import SYM2, SYM6, bands, coarser, finer
from zoo.training.augmentation.geometry import blit, drawn_geometry, drawn_moves, geometry, moved, resampled, turn
from zoo.training.augmentation.warp import reflect, warp

CPU = torch.device("cpu")
CHANGES = {each.__name__: each for each in SETS["ada:bgcfnc"]}
by_change = pytest.mark.parametrize("name", sorted(CHANGES))


def pictures(n: int = 6, channels: int = 3, size: int = 16, **options) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1), **options) * 2 - 1


def smooth(size: int = 64) -> torch.Tensor:
    """One image [1, 3, size, size] without fine detail: waves of eight pixels and more."""
    axis = 2 * pi * torch.arange(size, dtype=torch.float64) / size
    wave = (3 * axis + 1).sin()[:, None] * (5 * axis).cos() + 0.3 * (8 * axis + 2).cos()[:, None]
    return torch.stack([wave, -wave, wave.roll(9, 1)])[None] / 2


def still(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """No mirroring, no quarters, no shift."""
    return torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64), torch.zeros(n, 2)


def neutral(n: int) -> dict[str, torch.Tensor]:
    """The strengths of colour that change nothing."""
    zero, one = torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64)
    return {"brightness": zero, "contrast": one, "flipped": zero.bool(), "hue": zero, "saturation": one}


def near(found: torch.Tensor, share: float) -> bool:
    """Whether so many of thousands are true, within four deviations."""
    return abs(float(found.double().mean()) - share) < 4 * (share * (1 - share) / len(found)) ** 0.5


def spread(values: torch.Tensor, deviation: float) -> bool:
    """Whether thousands of values look as if drawn from a normal distribution around 0."""
    inside = near(values.abs() < deviation, 0.6827) and near(values.abs() < 2 * deviation, 0.9545)
    return inside and abs(float(values.mean())) < 4 * deviation / len(values) ** 0.5


def unchanged(images: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    return (images == changed).flatten(1).all(1)


# The pipeline.


@pytest.mark.parametrize("name", sorted(SETS))
def test_with_p_0_images_are_what_they_were(name):
    images = pictures()
    assert ada(images, SETS[name], 0.0, Noise(0)) is images


@by_change
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_that_are_not_chosen_stay_as_they_are_to_the_bit(name, channels):
    images = pictures(64, channels)
    changed = ada(images, (CHANGES[name],), 0.1, Noise(0))
    assert changed.shape == images.shape
    same = unchanged(images, changed)
    assert 0 < int(same.sum()) < 64
    assert bool(ada(images, (CHANGES[name],), 1e-9, Noise(0)).equal(images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_changed_in_single(dtype):
    images = pictures().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        changed = ada(images, SETS["ada:bgcf"], 0.9, Noise(1))
    assert changed.dtype == dtype
    assert torch.equal(changed, ada(images.float(), SETS["ada:bgcf"], 0.9, Noise(1)).to(dtype))


@by_change
def test_each_change_is_differentiable_twice(name):
    images = pictures(2, 4, size=4, dtype=torch.float64).requires_grad_(True)

    def through(x):
        return CHANGES[name](x, 0.9, Noise(3)).pow(3)

    assert not torch.equal(through(images), images.pow(3))
    assert torch.autograd.gradcheck(through, (images,))
    assert torch.autograd.gradgradcheck(through, (images,), fast_mode=True)


@pytest.mark.parametrize("name", sorted(SETS))
def test_shares_of_a_batch_are_changed_as_the_whole(name):
    images = pictures(8, size=32)
    whole = ada(images, SETS[name], 0.6, Noise(4))
    assert int(unchanged(images, whole).sum()) < 8
    for share in range(2):
        part = ada(images[share::2], SETS[name], 0.6, Noise(4, share=share, shares=2))
        assert torch.allclose(part, whole[share::2], atol=1e-6)


@pytest.mark.parametrize("p", [0.2, 0.8])
@pytest.mark.parametrize(
    ("name", "seen"),
    [
        # The share of images that differ, of those that p chooses: half of mirrors and a quarter of quarter turns
        # change nothing, and of moves by up to 2 of 16 pixels, rounded, one in 4 along each axis.
        ("blit", lambda p: 1 - (1 - p / 2) * (1 - p * 3 / 4) * (1 - p * 15 / 16)),
        ("geometry", lambda p: 1 - (1 - p) ** 4),            # both turns together count once
        ("colour", lambda p: 1 - (1 - p / 2) * (1 - p) ** 4),      # half of the luma flips
        ("filtering", lambda p: 1 - (1 - p) ** 4),
        ("grain", lambda p: p),
        ("hole", lambda p: p),
    ],
)
def test_changes_happen_as_often_as_p_says(name, seen, p):
    images = pictures(2000)
    share = 1 - float(unchanged(images, CHANGES[name](images, p, Noise(5))).double().mean())
    expected = seen(p)
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 2000) ** 0.5


# Moves of whole pixels.


@pytest.mark.parametrize("size", [15, 16])
def test_quarters_mirrors_and_moves_are_exact(size):
    images = pictures(4, 3, size)
    mirrored, quarters, shift = still(4)
    assert torch.equal(moved(images, mirrored, quarters, shift), images)
    assert torch.equal(moved(images, ~mirrored, quarters, shift), images.flip(3))
    for k in range(4):
        assert torch.equal(moved(images, mirrored, quarters + k, shift), torch.rot90(images, k, (2, 3)))
    right_and_up = torch.tensor([[3.0, -2.0]]).expand(4, 2)
    padded = torch.nn.functional.pad(images, (3, 0, 0, 2), mode="reflect")
    assert torch.equal(moved(images, mirrored, quarters, right_and_up), padded[:, :, 2:, :size])
    both = moved(images, ~mirrored, quarters + 1, right_and_up)
    turned = torch.rot90(images.flip(3), 1, (2, 3))      # mirrored first, then turned, then moved
    assert torch.equal(both, moved(turned, mirrored, quarters, right_and_up))


def test_moves_are_drawn_evenly():
    n = 8000
    mirrored, quarters, shift = drawn_moves(torch.empty(n, 1, 32, 64), 1.0, Noise(0))
    assert near(mirrored, 0.5)
    assert all(near(quarters == k, 0.25) for k in range(4))
    for axis, reach in enumerate((8, 4)):
        assert all(near(shift[:, axis] == k, 1 / (2 * reach)) for k in range(1 - reach, reach))
        assert all(near(shift[:, axis] == k, 1 / (4 * reach)) for k in (-reach, reach))      # half as often: rounded
    mirrored, quarters, shift = drawn_moves(torch.empty(n, 1, 32, 64), 0.3, Noise(0))
    assert near(mirrored, 0.15)
    assert near(quarters > 0, 0.3 * 3 / 4)
    assert near(shift.any(1), 0.3 * (1 - 1 / 8 / 16))


def test_blitting_makes_no_new_pixels():
    images = torch.arange(16.0 * 16).view(1, 1, 16, 16).expand(300, 1, 16, 16)
    changed = blit(images, 1.0, Noise(0))
    assert bool((changed == changed.round()).all())
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 255


def test_a_mirror_folds_places_back():
    places = torch.tensor([-4.0, -1.0, 0.0, 2.5, 3.0, 4.0, 6.5, 7.0])
    assert reflect(places, 4).tolist() == [2.0, 1.0, 0.0, 2.5, 3.0, 2.0, 0.5, 1.0]
    assert reflect(torch.tensor([-2, 0, 5]), 1).tolist() == [0, 0, 0]


def test_warp_reads_between_pixels_and_nothing_outside():
    image = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).view(1, 1, 2, 2)
    at = torch.tensor([[[0.0, 0.0], [0.5, 0.0], [0.25, 0.5], [5.0, 0.0]]])[None]
    assert torch.allclose(warp(image, at).flatten(), torch.tensor([0.0, 0.5, 1.25, 0.0]), atol=1e-6)
    assert warp(image, at + 0.1, nearest=True).flatten().tolist() == [0.0, 1.0, 2.0, 0.0]


# Geometry between two filters.


@pytest.mark.parametrize("taps", [SYM2, SYM6], ids=["sym2", "sym6"])
def test_filters_are_those_of_orthogonal_wavelets(taps):
    h = torch.tensor(taps, dtype=torch.float64)
    for shift in range(0, len(h), 2):
        assert float(h[shift:] @ h[: len(h) - shift]) == pytest.approx(float(shift == 0), abs=1e-10)
    assert float(h.sum()) == pytest.approx(2**0.5, abs=1e-10)
    alternating = h * (-1.0) ** torch.arange(len(h))
    for order in range(len(h) // 2):      # as many vanishing moments as half the taps
        moment = alternating @ torch.linspace(-1, 1, len(h), dtype=torch.float64) ** order
        assert float(moment) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("size", [1, 4, 5, 64])
def test_filters_undo_one_another(size):
    one = torch.eye(size, dtype=torch.float64)
    assert torch.allclose(coarser(size, one.dtype, CPU) @ finer(size, one.dtype, CPU), one, atol=1e-10)
    assert torch.allclose(bands(size, one.dtype, CPU).sum(0), one, atol=1e-10)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_no_change_of_place_is_the_identity(dtype, error):
    images = pictures(size=32, dtype=dtype)
    changed = resampled(images, torch.eye(2, dtype=dtype).expand(6, 2, 2), torch.zeros(6, 2))
    assert float((changed - images).abs().max()) < error


def test_whole_moves_in_between_are_exact_inside():
    images = pictures(size=32, dtype=torch.float64)
    changed = resampled(images, torch.eye(2).expand(6, 2, 2), torch.tensor([[3.0, -2.0]]).expand(6, 2))
    inside = (..., slice(4, -4), slice(4, -4))
    assert torch.allclose(changed[inside], images.roll((-2, 3), (2, 3))[inside], atol=1e-10)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turn_goes_about_the_centre(quarters):
    image = smooth()
    changed = resampled(image, turn(torch.tensor([-quarters * pi / 2], dtype=torch.float64)), torch.zeros(1, 2))
    difference = (changed - torch.rot90(image, quarters, (2, 3)))[..., 6:-6, 6:-6]
    # 0.7 to 1.3 %; about the middle of the filter's taps, instead of its centre of mass, it would be 17 to 25 %.
    assert float(difference.square().mean().sqrt()) < 0.02 * float(image.std())


def test_a_fraction_of_a_pixel_moves_a_wave_by_as_much():
    axis = torch.arange(64, dtype=torch.float64)
    image = (2 * pi * axis / 16).sin().expand(1, 1, 64, 64)
    changed = resampled(image, torch.eye(2).expand(1, 2, 2), torch.tensor([[0.3, 0.0]]))
    expected = (2 * pi * (axis - 0.3) / 16).sin().expand(1, 1, 64, 64)
    assert float((changed - expected)[..., 8:-8].abs().max()) < 0.02


def test_scaling_widens_what_it_shows():
    axis = torch.arange(64, dtype=torch.float64) - 31.5
    image = (2 * pi * axis / 16).cos().expand(1, 1, 64, 64)
    changed = resampled(image, torch.eye(2, dtype=torch.float64)[None] / 1.5, torch.zeros(1, 2))
    expected = (2 * pi * axis / 24).cos().expand(1, 1, 64, 64)
    assert float((changed - expected)[..., 8:-8].abs().max()) < 0.02


def test_geometry_is_drawn_as_the_paper_says():
    n = 8000
    chosen, inverse, shift = drawn_geometry(torch.empty(n, 1, 32, 64), 1.0, Noise(0))
    assert bool(chosen.all())
    assert spread(shift[:, 0], 8)
    assert spread(shift[:, 1], 4)
    # The determinant is 1 / scale^2, as stretching keeps areas; singular values are as stretch^2 to 1, or inversely.
    assert spread(inverse.det().log2(), 2 * 0.2)
    largest, smallest = torch.linalg.svdvals(inverse).unbind(1)
    ratio = (largest / smallest).log2()
    assert float(ratio.square().mean().sqrt()) == pytest.approx(2 * 0.2, rel=0.04)
    angle = torch.atan2(inverse[:, 0, 1] - inverse[:, 1, 0], inverse[:, 0, 0] + inverse[:, 1, 1])
    assert all(near((angle >= low * pi / 4) & (angle < (low + 1) * pi / 4), 1 / 8) for low in range(-4, 4))


def test_geometry_is_drawn_as_often_as_p_says():
    n, p = 8000, 0.36
    chosen, inverse, shift = drawn_geometry(torch.empty(n, 1, 32, 32), p, Noise(0))
    largest, smallest = torch.linalg.svdvals(inverse.double()).unbind(1)
    scaled, stretched = (largest * smallest - 1).abs() > 1e-4, (largest / smallest - 1).abs() > 1e-4
    assert all(near(each, p) for each in (scaled, stretched, shift.any(1)))
    angle = torch.atan2(inverse[:, 0, 1] - inverse[:, 1, 0], inverse[:, 0, 0] + inverse[:, 1, 1])
    assert near(angle.abs() > 1e-4, p)      # before or after: together
    assert near((angle.abs() > 1e-4) & ~(scaled | stretched | shift.any(1)), p * (1 - p) ** 3)
    assert torch.equal(chosen, scaled | stretched | shift.any(1) | (angle.abs() > 1e-4))


def test_geometry_scales_turns_stretches_and_turns_again():
    scale, before, stretch, after = 1.2, 0.3, 1.1, -0.7
    chain = turn(torch.tensor([after])) @ torch.diag(torch.tensor([stretch, 1 / stretch]))
    chain = chain @ turn(torch.tensor([before])) * scale
    drawn = drawn_geometry(torch.empty(1, 1, 8, 8), 1.0, Told([0] * 5, [scale, stretch], [before, after], [0, 0]))
    assert torch.allclose(drawn[1] @ chain, torch.eye(2), atol=1e-6)


class Told(Noise):
    """Noise that draws what makes ADA choose the given scales, angles and shift."""

    def __init__(self, gates, scales, angles, shift):
        super().__init__(0)
        self.uniforms = [gates, [(angle / pi + 1) / 2 for angle in angles]]
        self.normals = [[log2(scale) / 0.2 for scale in scales], shift]

    def uniform(self, n, *shape):
        return torch.tensor(self.uniforms.pop(0)).expand(n, -1)

    def normal(self, n, *shape):
        return torch.tensor(self.normals.pop(0)).expand(n, -1)


def test_geometry_keeps_flat_images_flat():
    images = torch.full((32, 3, 16, 16), 0.7)
    assert torch.allclose(geometry(images, 1.0, Noise(1)), images, atol=1e-5)


# Colour.


def test_colour_at_no_strength_changes_nothing():
    images = pictures(dtype=torch.float64)
    assert torch.allclose(painted(images, *colour_map(**neutral(6))), images, atol=1e-12)


def test_brightness_adds_and_contrast_multiplies():
    images = pictures(dtype=torch.float64)
    by = torch.linspace(-0.4, 0.4, 6, dtype=torch.float64)
    wide = by[:, None, None, None]
    brighter = painted(images, *colour_map(**{**neutral(6), "brightness": by}))
    assert torch.allclose(brighter, images + wide, atol=1e-12)
    both = painted(images, *colour_map(**{**neutral(6), "brightness": by, "contrast": 1 + by}))
    assert torch.allclose(both, (images + wide) * (1 + wide), atol=1e-12)      # brightness first


def maps(p: float, n: int = 8000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the matrices and shifts that `colour` draws, read off black, red, green and blue pixels."""
    corners = torch.cat([torch.zeros(3, 1), torch.eye(3)], dim=1).double().view(1, 3, 1, 4).expand(n, -1, -1, -1)
    changed = colour(corners, p, Noise(0)).squeeze(2)
    return changed[:, :, 1:] - changed[:, :, :1], changed[:, :, 0]


def test_colours_are_drawn_as_the_paper_says():
    matrix, shift = maps(1.0)
    grey = matrix.sum((1, 2)) / 3                        # contrast, negative where luma is flipped
    assert near(grey < 0, 0.5)
    assert spread(grey.abs().log2(), 0.5)
    assert spread(shift.mean(1) / grey, 0.2)
    # Across luma: det = flip contrast^3 saturation^2, and a turn by hue of all that is not grey.
    assert spread((matrix.det() / grey**3).log2() / 2, 1.0)
    across = torch.tensor([[2.0, -1, -1], [0, 3**0.5, -(3**0.5)]], dtype=torch.float64) / 6**0.5
    plane = across @ matrix @ across.T
    hue = torch.atan2(plane[:, 1, 0], plane[:, 0, 0])
    assert all(near((hue >= low * pi / 4) & (hue < (low + 1) * pi / 4), 1 / 8) for low in range(-4, 4))


def test_colours_are_drawn_as_often_as_p_says():
    matrix, shift = maps(0.3)
    grey = matrix.sum((1, 2)) / 3
    assert near(shift.abs().sum(1) > 1e-9, 0.3)
    assert near((grey.abs() - 1).abs() > 1e-5, 0.3)
    assert near(grey < 0, 0.15)
    assert near(((matrix.det() / grey**3) - 1).abs() > 1e-5, 0.3)


def test_a_luma_flip_undoes_itself_and_negates_grey():
    images = pictures(dtype=torch.float64)
    flip = colour_map(**{**neutral(6), "flipped": torch.ones(6, dtype=torch.bool)})
    flipped = painted(images, *flip)
    assert torch.allclose(flipped.mean(1), -images.mean(1), atol=1e-12)
    kept = images - images.mean(1, keepdim=True)      # what is not luma
    assert torch.allclose(flipped - flipped.mean(1, keepdim=True), kept, atol=1e-12)
    assert torch.allclose(painted(flipped, *flip), images, atol=1e-12)


def test_hue_turns_through_the_colours_and_comes_back():
    images = pictures(dtype=torch.float64)

    def hue(turns: float) -> torch.Tensor:
        angle = torch.full((6,), 2 * pi * turns, dtype=torch.float64)
        return painted(images, *colour_map(**{**neutral(6), "hue": angle}))

    assert torch.allclose(hue(1.0), images, atol=1e-6)
    assert torch.allclose(hue(1 / 3), images[:, [2, 0, 1]], atol=1e-6)      # red becomes green
    assert torch.allclose(hue(0.4).mean(1), images.mean(1), atol=1e-6)
    assert torch.allclose(hue(0.4).square().sum(1), images.square().sum(1), atol=1e-6)


def test_saturation_stretches_from_grey():
    images = pictures(dtype=torch.float64)
    by = torch.linspace(0, 2, 6, dtype=torch.float64)
    grey = images.mean(1, keepdim=True)
    expected = grey + (images - grey) * by[:, None, None, None]
    assert torch.allclose(painted(images, *colour_map(**{**neutral(6), "saturation": by})), expected, atol=1e-6)


@pytest.mark.parametrize("change", [colour, filtering, grain])
def test_alpha_keeps_its_values_where_colours_change(change):
    images = pictures(channels=4)
    changed = change(images, 1.0, Noise(0))
    assert torch.equal(changed[:, 3], images[:, 3])
    assert not torch.equal(changed[:, :3], images[:, :3])


@pytest.mark.parametrize("change", [blit, geometry, hole])
def test_alpha_moves_with_its_image(change):
    images = pictures(channels=1).expand(-1, 4, -1, -1)
    changed = change(images, 1.0, Noise(0))
    assert torch.allclose(changed[:, 3], changed[:, 0], atol=1e-6)


@pytest.mark.parametrize("change", [blit, geometry, colour, filtering, hole])
def test_grey_images_change_as_grey_colours_do(change):
    grey = pictures(32, 1)
    expected = change(grey.expand(-1, 3, -1, -1), 1.0, Noise(2))
    assert torch.allclose(change(grey, 1.0, Noise(2)).expand(-1, 3, -1, -1), expected, atol=1e-5)


# Bands, noise, holes.


@pytest.mark.parametrize(("band", "period"), [(0, 32), (1, 12), (2, 16 / 3), (3, 2)])
def test_a_band_holds_its_octave(band, period):
    wave = (2 * pi * torch.arange(96, dtype=torch.float64) / period).cos()
    power = (bands(96, torch.float64, CPU) @ wave)[:, 24:-24].square().mean(1)
    assert int(power.argmax()) == band
    assert float(power[band] / wave[24:-24].square().mean()) > 0.45


def test_gains_amplify_a_band_at_constant_power():
    alone = band_gains(torch.tensor([[1.0, 1.0, 3.0, 1.0]]))
    assert torch.allclose(alone, torch.tensor([[1.0, 1.0, 3.0, 1.0]]) / (1 + 8 / 13) ** 0.5)
    lowest = band_gains(torch.tensor([[3.0, 1.0, 1.0, 1.0]]))
    assert torch.allclose(lowest, torch.tensor([[3.0, 1.0, 1.0, 1.0]]) / (1 + 80 / 13) ** 0.5)
    spectrum = torch.tensor([10.0, 1.0, 1.0, 1.0]) / 13
    assert float((spectrum * alone.square()).sum()) == pytest.approx(1)
    two = band_gains(torch.tensor([[0.5, 1.0, 3.0, 1.0]]))
    assert torch.allclose(two, alone * band_gains(torch.tensor([[0.5, 1.0, 1.0, 1.0]])))


def test_filtering_scales_a_flat_image_by_the_lowest_band():
    images = torch.full((16, 3, 16, 16), 0.5, dtype=torch.float64)
    noise = Noise(3)
    noise.uniform(16, 4)
    gains = band_gains(2 ** noise.normal(16, 4)).double()
    changed = filtering(images, 1.0, Noise(3))
    assert torch.allclose(changed, 0.5 * gains[:, :1, None, None].square().expand_as(changed), atol=1e-6)


def test_noise_has_a_half_normal_deviation():
    deviations = grain(torch.zeros(2000, 3, 12, 12), 1.0, Noise(0)).std((1, 2, 3))
    assert float(deviations.mean()) == pytest.approx(0.1 * (2 / pi) ** 0.5, rel=0.06)
    assert float(deviations.square().mean().sqrt()) == pytest.approx(0.1, rel=0.06)


def test_a_hole_is_a_square_of_half_the_size():
    changed = hole(torch.ones(200, 3, 16, 16), 1.0, Noise(2))
    assert set(changed.unique().tolist()) == {0.0, 1.0}
    area = (changed[:, 0] == 0).float().mean((1, 2))
    assert float(area.max()) == pytest.approx(0.25)
    assert 0.05 < float(area.min()) < 0.12
