"""R3GAN: the paper's networks and recipe, classes that join, and pickles of the authors' repository."""

from __future__ import annotations

from math import sqrt

import pytest
import r3gan_reference as reference
import torch

import zoo
from zoo.losses import adversarial
from zoo.noise import Noise, key
from zoo.testing import CHECKS, check_architecture
from zoo.training import settled
from zoo.training.optimisers import annealed, momenta
from zoo.weights import build, load, save
from zoo_r3gan.config import PRESETS
from zoo_r3gan.networks import downsample, upsample

SMALL = {"resolution": 16, "latent": 8, "channel_max": 16, "channel_base": 128, "embedding": 4, "blocks": 1}


@pytest.fixture
def small():
    def make(**config):
        torch.manual_seed(0)
        return zoo.create("r3gan", **{**SMALL, **config})

    return make


def lively(model):
    """Give the layers that begin as zero weights, so that every layer shows in the output."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("narrow.weight"):
                weight.normal_(0, 0.2)
    return model


@pytest.mark.parametrize("config", [{}, {"num_classes": 3, "channels": 4}])
def test_it_keeps_the_contract(config):
    assert len(check_architecture("r3gan", **{**SMALL, **config})) == len(CHECKS)


def test_the_networks_have_the_papers_size():
    model = build("r3gan", PRESETS["ffhq256"], device="meta")
    networks = model.generator, model.discriminator
    sizes = [sum(weight.numel() for weight in network.parameters()) for network in networks]
    assert [round(size / 1e6, 3) for size in sizes] == [23.058, 23.010]      # as the paper counts
    assert [model.config.channels_at(4 << i) for i in range(7)] == [768, 768, 768, 768, 384, 192, 96]
    for preset in PRESETS.values():
        assert build("r3gan", preset, device="meta").config.penalty == pytest.approx(
            (preset["gamma"], preset["gamma"] / 10)
        )


def test_blocks_begin_as_the_identity_and_variance_is_kept(small):
    model = small(channel_max=64, channel_base=1024, blocks=2)
    block = model.generator.stages["8"].blocks[0]
    x = torch.randn(8, 64, 8, 8)
    assert torch.equal(block(x), x)
    gain = sqrt(2 / 1.04) * 6 ** (-1 / 4)                                     # six blocks in the network
    for layer, inputs in ((block.widen, 64), (block.mix, 16 * 9)):
        assert float(layer.weight.detach().std()) == pytest.approx(gain / sqrt(inputs), rel=0.05)
        assert float(layer.bias.detach().abs().max()) == 0
    z = torch.randn(256, 8)
    basis = model.generator.head(z)[:, :, None, None] * model.generator.basis
    assert float(basis.detach().std()) == pytest.approx(1, rel=0.2)


def test_resampling_is_bilinear_and_halving_is_the_adjoint_of_doubling():
    ramp = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 2, 6, 6)
    double = upsample(ramp)
    assert torch.allclose(double[0, 0, 2:-2, 6], torch.arange(0.75, 4.5, 0.5))      # within, where no border is seen
    assert torch.allclose(downsample(ramp)[0, 1, 1:-1, 1], torch.tensor([2.5]))
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    assert float((upsample(a) * b).sum()) == pytest.approx(float(4 * (a * downsample(b)).sum()), rel=1e-4)


def test_psi_scales_latents(small):
    model = lively(small())
    assert torch.equal(model.sample(2, seed=0, psi=0.5), model.sample(z=0.5 * latents(model, 2)))


def latents(model, n):
    """The latents that `sample` draws for seed 0."""
    return model.latent(n, Noise(key("sample", 0)))


def test_labels_steer_images_and_logits(small):
    model = lively(small(num_classes=3))
    images = model.sample(z=torch.ones(3, 8), labels=[0, 1, 2])
    assert not torch.allclose(images[0], images[1])
    logits = model.logits(images[:1].expand(3, -1, -1, -1), [0, 1, 2])
    assert logits.shape == (3, 1)
    assert logits.unique().numel() == 3


def test_the_recipe_is_the_papers(small):
    recipe = small(resolution=64, channel_base=1024).recipe()
    assert [phase.trains for phase in recipe.phases] == [("discriminator",), ("generator",)]
    judge = recipe.phases[0]
    assert judge.every == 1
    assert judge.loss.adversarial == adversarial("relativistic")
    assert judge.settings == {"loss": "relativistic", "gamma": 2.0, "final_gamma": 0.2}
    assert [annealed(recipe, share) for share in (0, 0.5, 1)] == pytest.approx([2e-4, 1.25e-4, 5e-5])
    assert [momenta(recipe, share) for share in (0, 1)] == [(0.0, 0.9), (0.0, 0.99)]
    assert momenta(recipe, 0.5) == pytest.approx((0.0, 0.945))
    assert settled(recipe, {"lr": 1e-3}).lr == 1e-3


def test_weights_fit_another_resolution_channels_and_classes(small, tmp_path):
    model = lively(small(channel_max=8, group_width=8))
    folder = save(model.follow(("generator",)), tmp_path / "model")
    z, images = latents(model, 4), model.sample(4, seed=0)
    with_classes = load(folder, adapt=True, num_classes=3)
    assert torch.allclose(with_classes.sample(z=z, labels=[0, 1, 2, 0]), images, atol=1e-5)
    assert torch.allclose(with_classes.logits(images, [0, 1, 2, 0]), model.logits(images), rtol=1e-3, atol=1e-5)
    more = load(folder, adapt=True, channels=4)
    assert torch.allclose(more.sample(z=z)[:, :3], images, atol=1e-6)
    larger = load(folder, adapt=True, resolution=32, channel_base=256)      # the same channels at every stage:
    doubled = torch.nn.functional.interpolate(model.sample(z=z, clamp=False), scale_factor=2, mode="bilinear")
    found = larger.sample(z=z, clamp=False)                                 # the new one begins by doubling alone
    assert torch.allclose(found[:, :, 1:-1, 1:-1], doubled[:, :, 1:-1, 1:-1], atol=1e-4)
    smaller = load(folder, adapt=True, resolution=8)
    assert smaller.sample(2, seed=0).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("resolution", 24, "must be a power of two"),
        ("group_width", 5, "do not divide into groups of 5"),
        ("channel_base", 8, "0 channels within the blocks at 16 pixels"),
        ("gamma", -1.0, "greater than or equal to 0"),
        ("gamma", float("nan"), "finite number"),
        ("latent", 0, "greater than or equal to 1"),
    ],
)
def test_odd_settings_are_refused(small, setting, value, message):
    with pytest.raises(zoo.ZooError, match=message) as caught:
        small(**{setting: value})
    assert "\n" not in str(caught.value)


# Pickles of the authors' repository.


def written(tmp_path, made, **more):
    path = tmp_path / "network-snapshot-000100.pkl"
    path.write_bytes(reference.pickled(made, **more))
    return path


@pytest.mark.parametrize(("classes", "widths"), [(0, (16, 16, 8)), (3, (16, 16)), (2, (8, 4, 2))])
def test_the_authors_pickles_give_the_same_numbers(tmp_path, classes, widths):
    made = reference.networks(classes, widths)
    model = zoo.convert(written(tmp_path, made))
    assert model.architecture == "r3gan"
    resolution = 2 << len(widths)
    assert (model.config.resolution, model.config.num_classes, model.config.group_width) == (resolution, classes, 4)
    z, rows = torch.randn(3, 6), torch.eye(classes)[[0, 1, -1]] if classes else None
    images = torch.rand(3, 3, resolution, resolution) * 2 - 1
    with torch.no_grad():
        pairs = (
            (model.sample(z=z, labels=rows, clamp=False), made["G_ema"](z, rows)),
            (model.generator(z, rows), made["G"](z, rows)),
            (model.logits(images, rows), made["D"](images, rows)),
        )
    for found, wanted in pairs:
        assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_a_pickle_of_the_averaged_generator_alone(tmp_path):
    made = reference.networks()
    model = zoo.convert(written(tmp_path, {"G_ema": made["G_ema"]}))
    assert model.absent == ("discriminator",)
    z = torch.randn(2, 6)
    assert torch.allclose(model.sample(z=z, clamp=False), made["G_ema"](z).detach(), atol=1e-5)


def test_odd_pickles_are_refused_by_the_name_in_the_file(tmp_path):
    def refused(change, match):
        made = reference.networks()
        change(made)
        with pytest.raises(zoo.ZooError, match=match) as caught:
            zoo.convert(written(tmp_path, made), format="r3gan")
        assert "\n" not in str(caught.value)

    def lacks(made):
        del made["G"].Model.MainLayers[1].Layers[1].NonLinearity1.Bias

    def more(made):
        made["D"].Model.extra = torch.nn.Linear(2, 2)

    def uneven(made):
        made["G"].Model.MainLayers[1].Layers[1] = reference.ResidualBlock(16, 4, 4)

    refused(lacks, r"'Model\.MainLayers\.1\.Layers\.1\.NonLinearity1\.Bias' is missing")
    refused(more, r"'Model\.extra\.(weight|bias)' is unknown")
    refused(uneven, "built alike")
    refused(lambda made: made.update(D=reference.networks(widths=(16, 16))["D"]), "resolution of D is 8, elsewhere 16")
    refused(lambda made: made.clear(), "is no checkpoint of the format r3gan")
