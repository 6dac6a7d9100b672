"""StyleGAN2's parts against the paper's equations written out plainly, and what its sampling options mean."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d

import zoo
from zoo.noise import Noise
from zoo.penalties import path_lengths
from zoo.recipe import Batch
from zoo_stylegan.layers import Conv, Dense, ModulatedConv, blur, downsample, minibatch_stddev, upsample
from zoo_stylegan.objectives import styles

KERNEL = np.outer([1.0, 3, 3, 1], [1.0, 3, 3, 1]) / 64


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def filtered(plane: np.ndarray, padding: int, stride: int = 1) -> np.ndarray:
    """One plane, padded with zeros and filtered, number by number."""
    padded = np.pad(plane, padding)
    size = (padded.shape[0] - 4) // stride + 1
    at = [slice(i * stride, i * stride + 4) for i in range(size)]
    return np.array([[(padded[rows, columns] * KERNEL).sum() for columns in at] for rows in at])


@pytest.mark.parametrize(("padding", "stride"), [(1, 1), (2, 1), (1, 2)])
def test_blur_is_the_binomial_filter(padding, stride):
    x = randn(2, 3, 6, 6)
    found = blur(x, padding, gain=2.0, stride=stride)
    for n in range(2):
        for c in range(3):
            assert np.allclose(found[n, c], 2 * filtered(x[n, c].numpy(), padding, stride), atol=1e-12)


def test_upsample_puts_zeros_between_and_filters():
    x = randn(2, 3, 5, 5)
    between = np.zeros((2, 3, 12, 12))          # two zeros before and one after, so that the filter fits
    between[:, :, 2:12:2, 2:12:2] = x
    found = upsample(x)
    assert found.shape == (2, 3, 10, 10)
    for n in range(2):
        for c in range(3):
            assert np.allclose(found[n, c], 4 * filtered(np.pad(between[n, c], (0, 1)), 0), atol=1e-12)
    assert torch.allclose(upsample(torch.ones(1, 1, 6, 6))[0, 0, 2:-2, 2:-2], torch.ones(8, 8))


SHORT, LONG = (1.0, 1.0), (0.5, 1.0, 3.0, 3.0, 1.0, 0.5)


@pytest.mark.parametrize("taps", [SHORT, LONG])
def test_other_filters_are_transposed_convolutions_and_strided_ones(taps):
    x, length = randn(2, 3, 6, 6), len(taps)
    kernel = torch.outer(torch.tensor(taps), torch.tensor(taps)).double()
    kernel = (kernel / kernel.sum()).expand(3, 1, -1, -1)
    up = conv_transpose2d(x, 4 * kernel, stride=2, padding=length // 2 - 1, groups=3)
    assert torch.allclose(upsample(x, taps), up, atol=1e-6)
    down = conv2d(x, kernel, stride=2, padding=length // 2 - 1, groups=3)
    assert torch.allclose(downsample(x, taps), down, atol=1e-6)
    layer = Conv(3, 2, 3, down=True, active=False, taps=taps).double()
    wide = conv2d(x, kernel, padding=length // 2, groups=3)
    assert torch.allclose(layer(x), conv2d(wide, layer.weight * layer.scale, stride=2), atol=1e-6)
    assert layer(x).shape == (2, 2, 3, 3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: blur(x, 1), lambda x: blur(x, 2, 4.0), lambda x: blur(x, 1, stride=2), upsample,
        lambda x: blur(x, 3, taps=LONG), lambda x: downsample(x, LONG), lambda x: upsample(x, LONG),
        lambda x: downsample(x, SHORT),
    ],
    ids=["blur", "blur wide", "blur and halve", "upsample", "long", "long halving", "long doubling", "box halving"],
)  # fmt: skip
def test_filters_differentiate_twice(function):
    x = randn(1, 2, 6, 6).requires_grad_(True)
    # The filters are linear, so a power makes the second derivative more than zero.
    assert torch.autograd.gradcheck(lambda x: function(x).pow(2), (x,))
    assert torch.autograd.gradgradcheck(lambda x: function(x).pow(2), (x,))


def modulated(weight: torch.Tensor, style: torch.Tensor, demodulate: bool) -> torch.Tensor:
    """Karras et al., 2020, equations 1 to 3 for one sample: scale the weights, then divide by their norm."""
    scaled = weight * style[None, :, None, None]
    if not demodulate:
        return scaled
    return scaled / (scaled.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_is_that_of_modulated_weights(kernel, demodulate):
    torch.manual_seed(0)
    layer = ModulatedConv(4, 5, kernel, 6, demodulate=demodulate).double()
    x, w = randn(3, 4, 7, 7), randn(3, 6, seed=1)
    found = layer(x, w)
    gain = 1.0 if demodulate else 1 / sqrt(4 * kernel**2)      # the norm takes out any constant
    for n in range(3):
        style = (layer.affine.weight @ w[n]) / sqrt(6) + layer.affine.bias
        weight = modulated(layer.weight, style * gain, demodulate)
        expected = conv2d(x[n : n + 1], weight, padding=kernel // 2)
        assert torch.allclose(found[n : n + 1], expected, atol=1e-10, rtol=0)


def test_modulated_upsampling_is_a_transposed_convolution_then_the_filter():
    torch.manual_seed(0)
    layer = ModulatedConv(4, 5, 3, 6, up=True).double()
    x, w = randn(3, 4, 6, 6), randn(3, 6, seed=1)
    found = layer(x, w)
    assert found.shape == (3, 5, 12, 12)
    for n in range(3):
        weight = modulated(layer.weight, layer.affine(w[n : n + 1])[0], True)
        wide = conv_transpose2d(x[n : n + 1], weight.transpose(0, 1), stride=2)[0].detach().numpy()
        for channel in range(5):
            assert np.allclose(found[n, channel].detach(), 4 * filtered(wide[channel], 1), atol=1e-10)


def test_demodulated_features_have_unit_variance_whatever_the_style():
    torch.manual_seed(0)
    layer = ModulatedConv(32, 32, 3, 8).double()
    found = layer(randn(8, 32, 16, 16), 50 * randn(8, 8, seed=1))[:, :, 1:-1, 1:-1]
    assert torch.allclose(found.var((2, 3)).mean(1), torch.ones(8, dtype=torch.float64), atol=0.15)


def test_dense_scales_its_weights_when_used():
    torch.manual_seed(0)
    layer = Dense(9, 4, bias=1.0, rate=0.01).double()
    x = randn(2, 9)
    assert torch.allclose(layer.bias, torch.full((4,), 100.0, dtype=torch.float64))
    assert torch.allclose(layer(x), x @ layer.weight.T * 0.01 / 3 + 1)
    assert 50 < float(layer.weight.detach().std()) < 150


@pytest.mark.parametrize(("n", "group"), [(8, 4), (4, 4), (6, 4), (8, 2), (6, None)])
@pytest.mark.parametrize("channels", [1, 2])
def test_minibatch_stddev_counted_out(n, group, channels):
    x = randn(n, 4, 3, 3)
    found = minibatch_stddev(x, group, channels)
    assert found.shape == (n, 4 + channels, 3, 3)
    assert torch.equal(found[:, :4], x)
    values = x.numpy()
    size = group if group and n % group == 0 else n
    step = n // size                                            # sample i is with i + step, i + 2 step, ...
    for i in range(n):
        members = values[i % step :: step]
        assert len(members) == size
        for k in range(channels):
            part = members[:, k * 4 // channels : (k + 1) * 4 // channels]
            expected = np.sqrt(((part - part.mean(0)) ** 2).mean(0) + 1e-8).mean()
            assert np.allclose(found[i, 4 + k], expected, atol=1e-12)


@pytest.fixture
def trained(tiny):
    """A tiny model whose average style, noise and averages differ from their starting values."""
    model = tiny("stylegan", mapping_rate=1.0)
    with torch.no_grad():
        model.generator.w_average.copy_(randn(16, seed=5, dtype=torch.float32))
        for layer in model.generator.layers():
            layer.noise_strength.fill_(0.5)
    return model


def test_psi_zero_gives_everybody_the_average_style(trained):
    images = trained.sample(4, seed=0, psi=0.0, noise="none")
    generator = trained.generator
    w = generator.broadcast(generator.w_average[None])
    expected = generator.synthesis(w, generator.random_noise(1, None)).clamp(-1, 1)
    assert torch.allclose(images, expected.expand_as(images), atol=1e-5)
    assert float(trained.sample(4, seed=0, noise="none").std(0).max()) > 0.01


def test_psi_pulls_styles_and_cutoff_limits_it_to_the_first_layers(trained):
    generator, z = trained.generator, randn(3, 16, dtype=torch.float32)
    w = generator.broadcast(generator.mapping(z, None)).detach()
    pulled = generator.w_average + 0.3 * (w - generator.w_average)
    silent = generator.random_noise(3, None)
    for cutoff in (0, 2, generator.styles, None):
        reach = generator.styles if cutoff is None else cutoff
        expected = generator.synthesis(torch.cat([pulled[:, :reach], w[:, reach:]], dim=1), silent)
        found = trained.sample(z=z, psi=0.3, cutoff=cutoff, noise="none", clamp=False)
        assert torch.allclose(found, expected, atol=1e-5), cutoff


def test_styles_beyond_the_cutoff_stay_to_the_bit(trained):
    z = randn(3, 16, dtype=torch.float32)
    assert torch.equal(trained.styles(z, psi=0.3, cutoff=2)[:, 2:], trained.styles(z)[:, 2:])


def test_noise_is_fresh_or_stored_or_none(trained):
    z = randn(1, 16, dtype=torch.float32).expand(2, -1)

    def images(**options):
        return trained.sample(z=z, **{"seed": 0, **options})

    assert not torch.equal(images(noise="random")[0], images(noise="random")[1])
    assert not torch.equal(images(noise="random"), images(noise="random", seed=1))
    assert torch.equal(images(noise="random"), images())
    for kind in ("const", "none"):
        assert torch.allclose(images(noise=kind)[0], images(noise=kind)[1], atol=1e-5)
        assert torch.equal(images(noise=kind), images(noise=kind, seed=1))
    assert not torch.allclose(images(noise="const"), images(noise="none"), atol=1e-3)
    with pytest.raises(zoo.ZooError, match="random, const, none"):
        images(noise="white")


def test_styles_and_synthesis_are_the_halves_of_a_sample(trained):
    z = randn(70, 16, dtype=torch.float32)      # more than are made at once
    styles = trained.styles(z, psi=0.5, cutoff=3)
    assert styles.shape == (70, trained.generator.styles, 16)
    found = trained.synthesise(styles, noise="const")
    assert torch.equal(found, trained.sample(z=z, psi=0.5, cutoff=3, noise="const"))
    again = [trained.synthesise(styles, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])
    assert float(trained.synthesise(3 * styles, noise="none", clamp=False).abs().max()) > 1
    average = trained.styles(z[:1], psi=0)
    assert torch.allclose(average, trained.generator.w_average.expand_as(average), atol=1e-6)


def test_mixed_styles_draw_with_each_of_them(trained):
    one, other = trained.styles(randn(2, 16, dtype=torch.float32)).split(1)
    mixed = torch.cat([one[:, :2], other[:, 2:]], dim=1)
    generator = trained.generator
    expected = generator.synthesis(mixed, generator.constant_noise()).detach()
    assert torch.allclose(trained.synthesise(mixed, noise="const", clamp=False), expected, atol=1e-6)
    assert not torch.allclose(trained.synthesise(one, noise="const", clamp=False), expected, atol=1e-3)


def test_large_images_are_synthesised_fewer_at_once(tiny):
    model = tiny("stylegan", resolution=512, channel_base=512, channel_max=1)
    at_once: list[int] = []
    last = model.generator.blocks["512x512"]
    last.register_forward_hook(lambda block, inputs, output: at_once.append(len(output[0])))
    model.synthesise(model.styles(randn(17, 16, dtype=torch.float32)))
    model.sample(17, seed=0)
    assert at_once == [16, 1, 16, 1]


def test_gradients_reach_styles_that_ask_for_them(trained):
    styles = trained.styles(randn(1, 16, dtype=torch.float32))
    assert not trained.synthesise(styles).requires_grad
    styles.requires_grad_(True)
    trained.synthesise(styles, noise="none", clamp=False).square().mean().backward()
    assert float(styles.grad.abs().min(dim=2).values.max()) > 0
    with torch.no_grad():
        assert not trained.synthesise(styles).requires_grad


def test_what_is_no_style_is_refused(trained, tiny):
    z = randn(2, 16, dtype=torch.float32)
    for attempt in (
        lambda: trained.synthesise(z),
        lambda: trained.synthesise(trained.styles(z)[:, 1:]),
        lambda: trained.synthesise(trained.styles(z), noise="white"),
        lambda: trained.synthesise(trained.styles(z), noise=["none"]),
        lambda: trained.synthesise(trained.styles(z), seed="x"),
        lambda: trained.styles(z[:, 1:]),
        lambda: trained.styles(z, psi="x"),
        lambda: trained.styles(z, psi=0.5, cutoff="x"),
        lambda: trained.styles(z, [0, 1]),
        lambda: tiny("stylegan", num_classes=2).styles(z),
    ):
        with pytest.raises(zoo.ZooError):
            attempt()


def test_style_mixing_takes_a_second_style_from_one_layer_on(tiny):
    model = tiny("stylegan", resolution=32)
    batch = Batch(torch.zeros(200, 3, 32, 32), None, Noise(1))
    w, mixed = styles(model, batch, 1.0)
    count = model.generator.styles
    first = (mixed == w[:, None]).all(2)
    assert mixed.shape == (200, count, 16)
    starts = first.sum(1)
    assert torch.equal(first, torch.arange(count)[None] < starts[:, None])       # one change, and no way back
    assert set(starts.tolist()) == set(range(1, count))
    for row, start in zip(mixed, starts.tolist()):
        assert torch.equal(row[start:], row[-1:].expand(count - start, -1))      # one other style for all the rest
    w, mixed = styles(model, replace(batch, noise=Noise(1)), 0.25)
    changed = (mixed[:, -1] != w).any(1).float().mean()
    assert 0.15 < float(changed) < 0.35
    w, mixed = styles(model, replace(batch, noise=Noise(1)), 0.0)
    assert torch.equal(mixed, w[:, None].expand(-1, count, -1))


def test_path_lengths_agree_with_finite_differences(trained):
    """J^T y, number by number: how much y . image changes when one number of one layer's style changes."""
    generator = trained.double().generator
    generator.requires_grad_(False)
    w = randn(1, generator.styles, 16, seed=2).requires_grad_(True)
    silent = generator.random_noise(1, None)
    noise = randn(1, 3, 16, 16, seed=3)
    found = path_lengths(generator.synthesis(w, silent), w, noise)
    with torch.no_grad():
        steps = 1e-5 * torch.eye(w.numel(), dtype=torch.float64).reshape(-1, *w.shape[1:])
        ahead, behind = (
            torch.cat([generator.synthesis(w + sign * part, silent) for part in steps.split(16)]) for sign in (1, -1)
        )
    slopes = ((ahead - behind) * noise / 16).sum((1, 2, 3)) / 2e-5                # y = noise / sqrt(16 * 16)
    expected = slopes.reshape(generator.styles, 16).square().sum(1).mean().sqrt()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def phase(model, name):
    return next(phase for phase in model.recipe().phases if phase.name == name)


def test_the_average_style_moves_a_two_hundredth_of_the_way(tiny):
    model = tiny("stylegan", mapping_rate=1.0)
    start = randn(16, seed=5, dtype=torch.float32)
    model.generator.w_average.copy_(start)
    turn = phase(model, "generator")
    turn.after(model, turn.loss(model, Batch(torch.zeros(4, 3, 16, 16), None, Noise(9))).watch)
    mean = model.generator.mapping(model.latent(4, Noise(9)), None).mean(0)
    assert torch.allclose(model.generator.w_average, start + 0.005 * (mean - start), atol=1e-6)


def test_path_length_aims_at_its_running_mean_on_half_the_batch(tiny):
    model = tiny("stylegan", mapping_rate=1.0)
    turn = phase(model, "path_length")
    seen = []
    hook = model.generator.mapping.register_forward_hook(lambda module, given, w: seen.append(len(w)))
    batch = Batch(torch.zeros(8, 3, 16, 16), None, Noise(9))
    model.path_length.fill_(0.0)
    terms = turn.loss(model, batch)
    hook.remove()
    assert seen == [4]
    at_zero = terms.minimise["path_length"].item()
    length = terms.watch["length"].item()
    assert at_zero >= 2 * length**2 * 0.999                     # 2 E[length^2], never below 2 E[length]^2
    model.path_length.fill_(length)
    at_mean = turn.loss(model, replace(batch, noise=Noise(9))).minimise["path_length"].item()
    assert at_mean == pytest.approx(at_zero - 2 * length**2, rel=1e-3)      # the variance is what remains
    model.path_length.fill_(0.0)
    turn.after(model, terms.watch)
    assert model.path_length.item() == pytest.approx(0.01 * length, rel=1e-5)


def test_recipe_is_the_papers(tiny):
    model = tiny("stylegan", resolution=32)
    recipe = model.recipe()
    assert [(p.name, p.every) for p in recipe.phases] == [
        ("generator", 1), ("path_length", 4), ("discriminator", 1), ("r1", 16),
    ]  # fmt: skip
    assert [p.name for p in model.recipe(path_weight=0).phases] == ["generator", "discriminator", "r1"]
    batch = Batch(randn(4, 3, 32, 32, dtype=torch.float32), None, Noise(0))
    weak, strong = (
        next(p for p in model.recipe(gamma=gamma).phases if p.name == "r1").loss(model, batch).minimise["r1"].item()
        for gamma in (None, 1.0)
    )
    assert weak == pytest.approx(strong * 0.1)
    large = tiny("stylegan", resolution=256, channel_base=512)
    assert large.recipe().phases[-1].settings["gamma"] == pytest.approx(0.0002 * 256**2 / 32)


@pytest.mark.parametrize("settings", [{"resolution": 256, "channel_base": 128}, {"stddev_channels": 3}])
def test_a_network_without_channels_is_refused(tiny, settings):
    with pytest.raises(zoo.ZooError, match="channels"):
        tiny("stylegan", **settings)


@pytest.mark.parametrize("synthesis", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("discriminator", ["skip", "resnet", "orig"])
@pytest.mark.parametrize("resolution", [8, 32])
def test_every_way_to_join_resolutions(tiny, synthesis, discriminator, resolution):
    kinds = {"synthesis_architecture": synthesis, "discriminator_architecture": discriminator}
    model = tiny("stylegan", **kinds, resolution=resolution, channels=4)
    images = model.sample(4, seed=0)
    assert images.shape == (4, 4, resolution, resolution)
    assert model.logits(images).shape == (4, 1)
    names = [name for name, _ in model.named_parameters()]
    drawn = {name.split(".")[2] for name in names if ".to_image." in name}
    sizes = {f"{4 << i}x{4 << i}" for i in range(resolution.bit_length() - 3 + 1) if 4 << i <= resolution}
    assert drawn == (sizes if synthesis == "skip" else {f"{resolution}x{resolution}"})
    assert any("generator.blocks" in name and ".skip." in name for name in names) == (synthesis == "resnet")
    assert any("discriminator.blocks" in name and ".skip." in name for name in names) == (discriminator == "resnet")
    seen = {name.split(".")[2] for name in names if "discriminator.blocks" in name and ".from_image." in name}
    lower = {f"{8 << i}x{8 << i}" for i in range(resolution.bit_length() - 4)}
    assert seen == (lower if discriminator == "skip" else set())
    assert any("from_image_4x4" in name for name in names) == (discriminator == "skip")


def test_labels_steer_images_and_logits(tiny):
    model = tiny("stylegan", num_classes=3, mapping_rate=1.0)
    z = randn(1, 16, dtype=torch.float32).expand(3, -1)
    images = model.sample(z=z, labels=[0, 1, 2], noise="none")
    assert float((images[0] - images[1]).abs().max()) > 1e-3
    assert torch.equal(images, model.sample(z=z, labels=torch.eye(3), noise="none"))
    same = images[:1].expand(3, -1, -1, -1)
    logits = model.logits(same, [0, 1, 2])
    assert logits.shape == (3, 1)
    assert float(logits.std()) > 1e-4


def test_a_discriminator_that_came_alone_takes_classes(tiny, tmp_path):
    alone = tiny("stylegan").without(["generator"])
    model = zoo.load(f"dir:{zoo.save(alone, tmp_path / 'alone')}", adapt=True, num_classes=2)
    images = randn(2, model.config.channels, model.config.resolution, model.config.resolution, dtype=torch.float32)
    assert model.absent == ("generator",)
    assert model.logits(images, [0, 1]).shape == (2, 1)


def test_the_discriminator_has_sizes_of_its_own(tiny):
    own = {
        "discriminator_channel_base": 64, "discriminator_channel_max": 12, "discriminator_label": 7,
        "discriminator_embed": 3, "discriminator_mapping_width": 5, "discriminator_mapping_layers": 3,
    }  # fmt: skip
    model = tiny("stylegan", num_classes=2, embed=6, mapping_width=9, **own)
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["generator.blocks.16x16.conv1.conv.weight"] == [8, 8, 3, 3]
    assert shapes["discriminator.blocks.16x16.conv1.weight"] == [8, 4, 3, 3]
    assert shapes["discriminator.head.weight"] == [7, 12]
    for network, sizes in (("generator", [16 + 6, 9, 16]), ("discriminator", [3, 5, 5, 7])):
        layers = [shapes[f"{network}.mapping.layers.{i}.weight"] for i in range(len(sizes) - 1)]
        assert layers == [[b, a] for a, b in pairwise(sizes)]
        assert shapes[f"{network}.mapping.embed.weight"] == [sizes[0] - (16 if network == "generator" else 0), 2]
    unmapped = tiny("stylegan", num_classes=2, discriminator_mapping_layers=0)
    embed = unmapped.discriminator.mapping.embed
    direction = unmapped.discriminator.mapping(None, torch.eye(2))
    expected = embed.weight.T / sqrt(2) + embed.bias
    assert torch.allclose(direction, expected / expected.square().mean(1, keepdim=True).sqrt(), atol=1e-5)
    listed = tiny("stylegan", widths=[8, 4, 6, 3], discriminator_widths=(4, 8, 2))
    assert list(listed.generator.blocks["16x16"].conv0.conv.weight.shape) == [6, 4, 3, 3]
    assert list(listed.discriminator.from_image.weight.shape) == [2, 3, 1, 1]


def test_the_discriminator_has_a_clamp_of_its_own(tiny):
    images = randn(4, 3, 16, 16, dtype=torch.float32)
    logits = [
        tiny("stylegan", **clamps).logits(images)
        for clamps in ({}, {"conv_clamp": 0.1, "discriminator_clamp": 0.0}, {"discriminator_clamp": 0.1},
                       {"conv_clamp": 0.1})
    ]  # fmt: skip
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[2], logits[3])
    assert not torch.allclose(logits[0], logits[2], atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resample_filter": (1.0, 2.0, 1.0)}, {"resample_filter": (1.0, 2.0)},
        {"resample_filter": (1.0, -1.0, -1.0, 1.0)}, {"widths": (8, 8)}, {"discriminator_widths": (8, 8)},
        {"discriminator_channel_base": 8},
        {"discriminator_mapping_layers": 0, "discriminator_embed": 3}, {"discriminator_clamp": -1.0},
        {"stddev_group": 0}, {"widths": (8, 8, 8, 0)}, {"discriminator_label": 0},
    ],
)  # fmt: skip
def test_settings_that_make_no_network_are_refused(tiny, wrong):
    with pytest.raises(zoo.ZooError, match=next(iter(wrong))):
        tiny("stylegan", **wrong)


@pytest.mark.parametrize("resolution", [4, 12, 4096])
def test_odd_sizes_are_refused(tiny, resolution):
    with pytest.raises(zoo.ZooError, match=f"resolution={resolution}"):
        tiny("stylegan", resolution=resolution)


def test_clamp_bounds_the_features(tiny):
    model = tiny("stylegan", conv_clamp=0.01)
    assert float(model.sample(2, seed=0, clamp=False).abs().max()) < 0.1
    assert float(tiny("stylegan").sample(2, seed=0, clamp=False).abs().max()) > 0.1
