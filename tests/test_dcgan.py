"""DCGAN: its shapes at every size, its initial weights, and what labels do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo


@pytest.mark.parametrize("resolution", [16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_shapes(tiny, resolution, channels, num_classes):
    model = tiny(
        "dcgan", resolution=resolution, channels=channels, num_classes=num_classes, generator_width=4,
        discriminator_width=4,
    )  # fmt: skip
    labels = [0, 2] if num_classes else None
    images = model.sample(2, seed=0, labels=labels)
    assert images.shape == (2, channels, resolution, resolution)
    assert float(images.abs().max()) < 1                        # tanh
    assert model.logits(images, labels).shape == (2, 1)
    assert not torch.equal(*model.logits(torch.stack([images[0], -images[0]]), labels))


def test_widths_double_from_the_image_to_four_pixels():
    model = zoo.create("dcgan", resolution=64, generator_width=4, discriminator_width=8, latent=10)
    ups = [module for module in model.generator.modules() if isinstance(module, nn.ConvTranspose2d)]
    downs = [module for module in model.discriminator.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels) for conv in ups] == [(10, 32), (32, 16), (16, 8), (8, 4), (4, 3)]
    assert [(conv.in_channels, conv.out_channels) for conv in downs] == [(3, 8), (8, 16), (16, 32), (32, 64), (64, 1)]


def test_blocks_of_the_same_name_do_the_same_work_at_any_resolution():
    small, large = (zoo.create("dcgan", resolution=size).generator.state_dict() for size in (32, 128))
    shared = {name for name in small if name.startswith(("blocks.", "to_image."))}
    assert shared <= set(large)
    assert all(small[name].shape == large[name].shape for name in shared)


def test_weights_start_as_the_paper_says():
    torch.manual_seed(0)
    model = zoo.create("dcgan", resolution=32)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 10_000:
            assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
            assert abs(float(module.weight.detach().mean())) < 0.001
        if isinstance(module, nn.BatchNorm2d):
            assert 0.01 < float(module.weight.detach().std()) < 0.03
            assert float(module.weight.detach().mean()) == pytest.approx(1, abs=0.01)


def test_a_discriminator_without_norm_judges_each_image_by_itself(tiny):
    """Also while it is trained, so that the gradient of its logits at an image is that image's own."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    for norm in (True, False):
        model = tiny("dcgan", discriminator_norm=norm)
        alone, together = (model.train().discriminator(images[:n])[:2] for n in (2, 4))
        assert torch.allclose(alone, together, atol=1e-5) is not norm
        assert not any(isinstance(module, nn.BatchNorm2d) for module in model.discriminator.modules()) or norm
    wide = zoo.create("dcgan", resolution=64, discriminator_norm=False)
    logits = wide.logits(torch.randn(64, 3, 64, 64))
    assert 0.3 < float(logits.std()) < 3      # He: neither dies out nor explodes on the way


def test_labels_steer_images_and_logits(tiny):
    model = tiny("dcgan", num_classes=3)
    z = torch.ones(1, 8).expand(3, -1)
    images = model.sample(z=z, labels=[0, 1, 2])
    assert not torch.equal(images[0], images[1])
    same = images[:1].expand(3, -1, -1, -1)
    assert model.logits(same, [0, 1, 2]).unique().numel() == 3
    halves = model.sample(z=z[:1], labels=torch.tensor([[0.5, 0.5, 0.0]]))
    assert not torch.equal(halves[0], images[0])


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("resolution", 48, "must be a power of two"),
        ("resolution", 8, "greater than or equal to 16"),
        ("resolution", "32", "valid integer"),
        ("channels", 5, "less than or equal to 4"),
        ("latent", 0, "greater than or equal to 1"),
        ("num_classes", -1, "greater than or equal to 0"),
        ("width", 64, "has no setting 'width'"),
        ("laten", 64, "Did you mean 'latent'"),
    ],
)
def test_odd_settings_are_refused(tiny, setting, value, message):
    with pytest.raises(zoo.ZooError, match=message) as caught:
        tiny("dcgan", **{setting: value})
    assert "\n" not in str(caught.value)


def test_recipe_is_the_papers(tiny):
    recipe = tiny("dcgan").recipe()
    assert (recipe.lr, recipe.betas) == (2e-4, (0.5, 0.999))
    assert [phase.trains for phase in recipe.phases] == [("discriminator",), ("generator",)]
