"""StyleGAN3's parts against scipy and plain definitions, what moves with the image, and what its options mean."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.signal
import torch
from stylegan3_reference import plain, radial_filter, zeros_between
from torch import Tensor
from torch.nn.functional import leaky_relu, pad

import zoo
from zoo.errors import ConfigError
from zoo.noise import Noise
from zoo.penalties import path_lengths
from zoo.recipe import Batch
from zoo.testing import check_architecture
from zoo_stylegan.alias_free.config import StyleGAN3Config
from zoo_stylegan.alias_free.filtering import filtered_leaky_relu
from zoo_stylegan.alias_free.filters import design, kaiser, rows
from zoo_stylegan.alias_free.geometry import LowPass, Resampling
from zoo_stylegan.config import StyleGANConfig
from zoo_stylegan.networks import SynthesisLayer

TINY = {"resolution": 16, "latent": 8, "w": 8, "channel_base": 128, "channel_max": 16, "layers": 4}
SMALL = {"resolution": 64, "latent": 16, "w": 16, "channel_base": 1024, "channel_max": 16, "layers": 8}
R = {"conv_kernel": 1, "radial_filters": True}


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Filters.


@pytest.mark.parametrize(("taps", "width"), [(12, 0.3), (24, 0.11), (12, 1.4), (6, 0.02), (13, 0.5)])
def test_the_window_is_kaisers(taps, width):
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width))
    assert np.allclose(kaiser(taps, width), np.kaiser(taps, beta), atol=1e-12)


@pytest.mark.parametrize(("taps", "cutoff", "width", "rate"), [(12, 2, 12.0, 32), (24, 13.4, 9.7, 128), (13, 5, 3, 20)])
def test_separable_filters_are_scipys(taps, cutoff, width, rate):
    wanted = scipy.signal.firwin(taps, cutoff, width=width, fs=rate)
    assert np.allclose(design(LowPass(taps, cutoff, width, rate)), wanted, atol=1e-14)


@pytest.mark.parametrize(("taps", "cutoff", "width", "rate"), [(12, 2, 12.0, 32), (12, 7.5, 3.1, 32), (24, 20, 9, 128)])
def test_radial_filters_are_windowed_jincs_and_sums_of_few_separable_ones(taps, cutoff, width, rate):
    found = design(LowPass(taps, cutoff, width, rate, radial=True))
    assert torch.allclose(found.float(), radial_filter(taps, cutoff, width, rate), atol=1e-8, rtol=1e-6)
    columns, across = rows(found)
    assert len(columns) <= taps // 2
    assert torch.allclose(columns.T @ across, found, atol=1e-7 * float(found.max()) * taps, rtol=0)


def test_a_radial_filter_of_odd_length_has_its_limit_in_the_middle():
    found = design(LowPass(13, 3.0, 4.0, 32, radial=True))
    assert bool(found.isfinite().all())
    assert found.argmax() == found.numel() // 2
    assert float(found.sum()) == pytest.approx(1)


# Geometry.

PUBLISHED = {
    "T 1024": ({}, "36_512 36_512 52_512 52_512 84_512 148_512 148_512 276_323 276_203 532_128 1044_81 1044_51 1044_32 "
                   "1024_32 1024_3"),
    "R 1024": (R | {"channel_base": 65536, "channel_max": 1024},
               "36_1024 36_1024 52_1024 52_1024 84_1024 148_1024 148_1024 276_645 276_406 532_256 1044_161 1044_102 "
               "1044_64 1024_64 1024_3"),
    "R 512": (R | {"resolution": 512, "channel_base": 65536, "channel_max": 1024},
              "36_1024 36_1024 52_1024 52_1024 84_1024 84_1024 148_1024 148_967 276_645 276_431 532_287 532_192 "
              "532_128 512_128 512_3"),
    "T 256": ({"resolution": 256, "channel_base": 16384},
              "36_512 36_512 36_512 52_512 52_512 84_512 84_512 148_362 148_256 148_181 276_128 276_91 276_64 256_64 "
              "256_3"),
    "R 256": (R | {"resolution": 256, "channel_max": 1024},
              "36_1024 36_1024 36_1024 52_1024 52_1024 84_1024 84_1024 148_724 148_512 148_362 276_256 276_181 276_128 "
              "256_128 256_3"),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_have_the_sizes_and_channels_of_the_published_networks(name):
    settings, wanted = PUBLISHED[name]
    signals = StyleGAN3Config(**{"resolution": 1024, **settings}).signals()
    assert [f"{signal.size}_{signal.channels}" for signal in signals] == wanted.split()
    assert all(signal.cutoff < signal.rate / 2 for signal in signals[:-3])
    assert all(signal.half_width > 0 for signal in signals)
    assert all(a.cutoff <= b.cutoff for a, b in pairwise(signals))


@pytest.mark.parametrize(
    "settings",
    [
        {"critical_layers": 4}, {"first_cutoff": 8.0}, {"first_stopband": 1.5}, {"conv_kernel": 2}, {"channel_base": 32,
        "resolution": 256}, {"layers": 2, "critical_layers": 1, "resolution": 1024, "first_cutoff": 0.5,
        "first_stopband": 0.6}, {"resolution": 48}, {"last_stopband": 1.0},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ConfigError, match="stylegan3: "):
        zoo.create("stylegan3", **{**TINY, **settings})


# The filtered non-linearity.

BETWEEN = {
    "T": Resampling(11, 12, 2, 2, LowPass(12, 2.0, 12.0, 32), LowPass(12, 3.0, 10.0, 32), 0.7),
    "R": Resampling(9, 14, 4, 2, LowPass(24, 2.0, 12.0, 64), LowPass(12, 5.0, 6.0, 64, radial=True), 0.7),
    "cropped": Resampling(30, 8, 2, 2, LowPass(12, 7.0, 4.0, 32), LowPass(12, 7.0, 4.0, 32), None),
    "many tiles": Resampling(40, 60, 4, 2, LowPass(24, 2.0, 12.0, 64), LowPass(12, 5.0, 6.0, 64, radial=True), 0.3),
    "no filters": Resampling(9, 7, 1, 1, LowPass(1, 2.0, 12.0, 16), LowPass(1, 2.0, 12.0, 16), None),
}


def by_definition(x: Tensor, between: Resampling) -> Tensor:
    """Zeros between, padding, a filter; leaky ReLU; a filter, and every so many samples of it."""
    up, down = between.up_filter.taps, between.down_filter.taps
    over = (between.outputs - 1) * between.down + 1 - x.shape[2] * between.up + up + down - 2
    first = (over + between.up) // 2
    x = plain(pad(zeros_between(x, between.up), [first, over - first] * 2), design(between.up_filter) * between.up)
    x = leaky_relu(x, 0.2) * 2**0.5
    x = x if between.clamp is None else x.clamp(-between.clamp, between.clamp)
    return plain(x, design(between.down_filter))[:, :, :: between.down, :: between.down]


@pytest.mark.parametrize("name", BETWEEN)
def test_filtering_by_tiles_is_filtering_by_definition(name):
    between, x = BETWEEN[name], randn(2, 3, *[BETWEEN[name].inputs] * 2)
    found, wanted = filtered_leaky_relu(x, between), by_definition(x, between)
    assert found.shape == (2, 3, between.outputs, between.outputs)
    assert torch.allclose(found, wanted, atol=1e-6, rtol=0)
    if between.clamp:
        assert float((found - 9 * by_definition(x / 9, between)).abs().max()) > 0.01      # it does clamp


@pytest.mark.parametrize("name", BETWEEN)
def test_gradients_of_all_orders_are_those_of_the_definition(name):
    """Backward, and what R1, path length and their like take: a gradient of a function of the gradient."""
    between = BETWEEN[name]
    x, direction = randn(1, 2, *[between.inputs] * 2).requires_grad_(), randn(1, 2, *[between.outputs] * 2, seed=1)

    def derivatives(function) -> tuple[Tensor, Tensor]:
        (first,) = torch.autograd.grad((function(x, between).pow(2) * direction).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(3).sum(), x)
        return first.detach(), second

    for found, wanted in zip(derivatives(filtered_leaky_relu), derivatives(by_definition), strict=True):
        assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


def test_filters_keep_their_precision_under_autocast():
    between = BETWEEN["T"]
    x = randn(1, 2, 11, 11, dtype=torch.float32).requires_grad_()
    plainly = filtered_leaky_relu(x, between)
    (wanted,) = torch.autograd.grad(plainly.sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        found = filtered_leaky_relu(x, between)
        (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(found, plainly)
    assert torch.equal(gradient, wanted)
    assert filtered_leaky_relu(x.bfloat16(), between).dtype == torch.bfloat16


# What it is for: what is shown moves as a whole.


def model(**settings: object) -> zoo.Model:
    """A model whose styles and pictures are of usual size, though it is untrained."""
    torch.manual_seed(0)
    made = zoo.create("stylegan3", **settings)
    made.generator.w_average.normal_()
    torch.nn.init.normal_(made.generator.synthesis.input.affine.weight, std=0.3)
    return made


def difference(moved: Tensor, expected: Tensor, edge: int = 8) -> float:
    """The error of the middle of an image, relative to its deviation there."""
    inside = slice(edge, -edge)
    a, b = moved[:, :, inside, inside], expected[:, :, inside, inside]
    return float((a - b).square().mean().sqrt() / b.std())


def stylegan2_blocks(features: Tensor) -> Tensor:
    """Two up-sampling layers of StyleGAN2 on given features: [N, 16, h, h] -> [N, 16, 4h, 4h]."""
    config = StyleGANConfig(resolution=64, w=16)
    torch.manual_seed(1)
    w = torch.randn(len(features), 16)
    for _ in range(2):
        features = SynthesisLayer(16, 16, config, 64, up=True)(features, w, None)
    return features.detach()


def test_translation_is_followed_by_fractions_of_inner_pixels():
    """By 2 of 64 pixels, half a pixel of the first layers: StyleGAN2's blocks on the same features follow badly."""
    made = model(**SMALL)
    styles = made.styles(made.latent(2, Noise(0)))
    still, moved = (made.synthesise(styles, translate=(by / 64, 0), clamp=False) for by in (0, 2))
    ours = difference(moved, still.roll(2, 3))
    still, moved = (stylegan2_blocks(made.synthesis_input(styles, translate=(by / 64, 0))) for by in (0, 2))
    theirs = difference(moved, still.roll(2, 3), edge=50)
    assert ours < 2e-4
    assert theirs > 10 * ours


def test_r_follows_rotation_and_t_does_not():
    found = {}
    for name, settings in (("R", R), ("T", {})):
        made = model(**SMALL, **settings)
        styles = made.styles(made.latent(1, Noise(0)))
        still, moved = (made.synthesise(styles, rotate=by, clamp=False) for by in (0, 90))
        found[name] = difference(moved, still.rot90(1, (2, 3)))
    assert found["R"] < 1e-5
    assert found["T"] > 0.1


def test_translation_is_in_image_widths_to_the_right_and_down_after_rotation():
    made = model(**SMALL, **R)
    styles = made.styles(made.latent(1, Noise(0)))
    still = made.synthesise(styles, clamp=False)
    moved = made.synthesise(styles, translate=(0.125, -0.25), rotate=180, clamp=False)
    expected = still.rot90(2, (2, 3)).roll((8, -16), (3, 2))
    assert difference(moved, expected, edge=20) < 0.05


def test_the_buffer_transform_comes_before_the_options():
    made = model(**TINY)
    z = made.latent(2, Noise(0))
    wanted = made.sample(z=z, translate=(0.25, 0.125), clamp=False)
    made.generator.synthesis.input.transform[0, 2] = -0.25      # from a place in the image to what is shown there
    found = made.sample(z=z, translate=[0, 0.125], clamp=False)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_waves_fade_before_they_alias():
    made = model(**TINY)
    made.generator.synthesis.input.transform.mul_(torch.tensor([[9.0], [9.0], [1.0]]))      # nine times as dense
    made.generator.synthesis.input.freqs.sign_()
    made.generator.synthesis.input.freqs.mul_(1.4)
    assert not made.synthesis_input(made.styles(made.latent(1, Noise(0)))).any()


# Options and training.


def test_styles_are_what_samples_are_made_of():
    made = model(**TINY, num_classes=3)
    z, labels = made.latent(3, Noise(0)), [0, 2, 1]
    styles = made.styles(z, labels, psi=0.7, cutoff=2)
    assert styles.shape == (3, TINY["layers"] + 2, TINY["w"])
    assert torch.equal(made.synthesise(styles), made.sample(z=z, labels=labels, psi=0.7, cutoff=2))
    full, average = made.styles(z, labels), made.generator.w_average
    assert torch.equal(styles[:, 2:], full[:, 2:])
    assert torch.allclose(styles[:, :2], average + 0.7 * (full[:, :2] - average))
    assert torch.equal(made.sample(z=z, labels=labels, noise="random"), made.sample(z=z, labels=labels, noise="none"))
    assert made.synthesis_input(styles).shape == (3, 16, 36, 36)


def test_gradients_reach_styles_that_ask_for_them():
    made = model(**TINY)
    styles = made.styles(made.latent(1, Noise(0))).requires_grad_()
    made.synthesise(styles).square().sum().backward()
    assert all(bool(row.any()) for row in styles.grad[0])
    assert not made.synthesise(styles.detach()).requires_grad


@pytest.mark.parametrize(
    "options",
    [{"noise": "loud"}, {"cutoff": "all"}, {"translate": 3}, {"translate": (0, "x")}, {"rotate": float("inf")}],
)
def test_wrong_options_are_refused_in_one_line(options):
    with pytest.raises(ConfigError) as error:
        model(**TINY).sample(1, **options)
    assert "\n" not in str(error.value)
    assert next(iter(options)) in str(error.value)


def test_a_sample_does_not_depend_on_its_neighbours():
    made = model(**TINY)
    z = made.latent(4, Noise(0))
    assert torch.allclose(made.sample(z=z, clamp=False)[2:3], made.sample(z=z[2:3], clamp=False), atol=1e-6)


def test_path_lengths_can_be_a_term_of_a_loss():
    made = model(**TINY)
    w = made.generator.broadcast(made.generator.mapping(made.latent(2, Noise(0)), None))
    images = made.generator.synthesis(w)
    path_lengths(images, w, Noise(1).normal(*images.shape)).square().sum().backward()
    for name, parameter in made.generator.named_parameters():
        # The last bias shifts the image, whatever the styles.
        gradient = torch.zeros(()) if parameter.grad is None else parameter.grad
        assert bool(gradient.isfinite().all()), name
        assert bool(gradient.any()) or name.endswith(f"layers.{TINY['layers']}.bias"), name


def test_running_means_follow_what_the_layers_see_and_scale_it_back():
    made = zoo.create("stylegan3", **TINY, magnitude_ema_beta=0.75)
    (phase,) = [phase for phase in made.recipe().phases if phase.name == "generator"]
    batch = Batch(randn(4, 3, 16, 16, dtype=torch.float32), None, Noise(5))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    terms = phase.loss(made, batch)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())      # a loss is pure
    seen = terms.watch["magnitudes"]
    phase.after(made, terms.watch)
    for layer, square in zip(made.generator.synthesis.layers, seen, strict=True):
        assert float(layer.magnitude) == pytest.approx(0.75 + 0.25 * float(square), rel=1e-5)
    assert torch.allclose(made.generator.w_average, 0.002 * terms.watch["w"])
    layer, x, w = made.generator.synthesis.layers[1], randn(1, 16, 36, 36).float(), randn(1, 8).float()
    small = layer(x, w)
    layer.magnitude.mul_(4)
    assert torch.allclose(layer(2 * x, w), small, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, R | {"num_classes": 3, "channels": 1}], ids=["T", "R with classes"])
def test_it_keeps_the_contract_of_an_architecture(settings):
    assert check_architecture("stylegan3", **TINY, **settings)
