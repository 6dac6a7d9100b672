"""What every model offers its callers: samples by seed, latent and label, logits, averages, and clear refusals."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.model import SAMPLE_BATCH
from zoo.noise import Noise


def test_latents_may_come_as_maps_of_one_pixel(tiny):
    model = tiny("dcgan")
    z = torch.randn(3, 8)
    assert torch.equal(model.sample(z=z[:, :, None, None]), model.sample(z=z))
    with pytest.raises(zoo.ZooError, match=r"takes latents \[N, 8\]"):
        model.sample(z=z[:, :, None])


def test_a_seed_repeats_and_another_differs(tiny):
    model = tiny("stylegan")
    first = model.sample(3, seed=1)
    assert torch.equal(first, model.sample(3, seed=1))
    assert not torch.equal(first, model.sample(3, seed=2))
    assert first.dtype == torch.float32
    assert not first.requires_grad


def test_without_a_seed_torchs_own_decides(tiny):
    model = tiny("dcgan")
    torch.manual_seed(4)
    first, second = model.sample(), model.sample()
    torch.manual_seed(4)
    assert torch.equal(first, model.sample())
    assert not torch.equal(first, second)
    assert first.shape == (1, 3, 16, 16)


def test_sampling_with_a_seed_leaves_torchs_own_chance_alone(tiny):
    model = tiny("stylegan")
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    model.sample(2, seed=0)
    assert torch.equal(expected, torch.rand(3))


def test_latents_are_used_exactly_as_given(tiny):
    model = tiny("dcgan")
    z = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    images = model.sample(z=z, psi=0.1)
    assert torch.equal(images, model.eval().generator(z).detach())
    assert torch.allclose(images[2:3], model.sample(z=z[2:3]), atol=1e-6)


def test_psi_scales_drawn_latents(tiny):
    model = tiny("dcgan")
    assert torch.allclose(model.sample(3, seed=0, psi=0.0), model.sample(z=torch.zeros(3, 8)), atol=1e-6)


def test_large_counts_are_made_in_parts_and_the_first_part_stays(tiny):
    model = tiny("dcgan")
    z = torch.randn(SAMPLE_BATCH + 6, 8, generator=torch.Generator().manual_seed(0))
    images = model.sample(z=z)
    assert images.shape[0] == SAMPLE_BATCH + 6
    assert torch.allclose(images[SAMPLE_BATCH:], model.sample(z=z[SAMPLE_BATCH:]), atol=1e-6)


def test_clamp_can_be_left_out(tiny):
    model = tiny("stylegan")
    with torch.no_grad():
        model.generator.blocks["16x16"].to_image.bias.fill_(3.0)
    assert float(model.sample(2, seed=0).max()) == 1
    assert float(model.sample(2, seed=0, clamp=False).max()) > 2


def test_samples_come_from_the_averages_and_logits_from_the_live_critic(tiny):
    model = tiny("dcgan").follow(("generator",))
    before = model.sample(2, seed=0)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.add_(1.0)
    assert torch.equal(before, model.sample(2, seed=0))
    with torch.no_grad():
        for parameter in model.averages["generator"].parameters():
            parameter.add_(1.0)
    assert not torch.equal(before, model.sample(2, seed=0))
    assert not any(parameter.requires_grad for parameter in model.averages.parameters())
    assert set(model.networks()) == {"generator", "discriminator"}


def test_following_again_keeps_the_average(tiny):
    model = tiny("dcgan").follow(("generator",))
    average = model.averages["generator"]
    assert model.follow(("generator",)).averages["generator"] is average


@pytest.mark.parametrize("training", [True, False])
def test_sampling_and_judging_use_and_restore_the_mode(tiny, training):
    model = tiny("dcgan").train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images = model.sample(4, seed=0)
    logits = model.logits(images)
    assert model.training is training
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())     # batch statistics too
    assert torch.allclose(logits[:1], model.logits(images[:1]), atol=1e-6)                        # nor used


def test_labels_are_indices_or_rows_or_drawn(tiny):
    model = tiny("dcgan", num_classes=4)
    z = torch.ones(4, 8)
    expected = model.sample(z=z, labels=torch.arange(4))
    assert torch.equal(expected, model.sample(z=z, labels=[0, 1, 2, 3]))
    assert torch.equal(expected, model.sample(z=z, labels=torch.eye(4)))
    drawn = model.sample(z=torch.ones(40, 8), seed=0)
    for image in drawn:
        assert any(torch.allclose(image, each, atol=1e-6) for each in expected)
    assert len(drawn[:, 0, 0].unique(dim=0)) == 4
    assert model.sample(labels=[1, 1]).shape[0] == 2


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (0, {"n": 0}, "Cannot make 0 images"),
        (0, {"n": -2}, "Cannot make -2 images"),
        (0, {"n": 3, "z": torch.zeros(2, 8)}, r"disagree.*\[2, 3\]"),
        (0, {"z": torch.zeros(8)}, r"z of shape \[8\]"),
        (0, {"z": torch.zeros(2, 8, dtype=torch.int64)}, "int64"),
        (0, {"z": torch.zeros(2, 9)}, r"z of shape \[2, 9\]"),
        (0, {"n": 2, "labels": [0, 1]}, "no classes"),
        (3, {"labels": [0, 3]}, "0 to 3 are outside 0 to 2"),
        (3, {"labels": [-1]}, "-1 to -1 are outside"),
        (3, {"labels": torch.tensor([0.5, 1.0])}, r"give class indices \[2\]"),
        (3, {"labels": torch.zeros(2, 4)}, r"labels of shape \[2, 4\]"),
        (3, {"n": 2, "labels": [0]}, "disagree"),
        (0, {"n": 2, "truncation": 0.5}, "truncation"),
    ],
)
def test_wrong_questions_get_one_line(tiny, classes, options, message):
    with pytest.raises(zoo.ZooError, match=message) as caught:
        tiny("dcgan", num_classes=classes).sample(**options)
    assert "\n" not in str(caught.value)


def test_logits_need_fitting_images_and_labels(tiny):
    model = tiny("dcgan", num_classes=3)
    with pytest.raises(zoo.ZooError, match="3 classes: give labels"):
        model.logits(torch.zeros(2, 3, 16, 16))
    with pytest.raises(zoo.ZooError, match=r"\[2, 3, 8, 8\]"):
        model.logits(torch.zeros(2, 3, 8, 8), [0, 1])


def test_what_an_architecture_lacks_is_said(tiny):
    model = tiny("dcgan")
    with pytest.raises(zoo.ZooError, match="dcgan has no encoder"):
        model.encode(torch.zeros(1, 3, 16, 16))
    with pytest.raises(zoo.ZooError, match="dcgan has no decoder"):
        model.decode(torch.zeros(1, 8))
    autoencoder = zoo.create("vae", resolution=8, width=4, latent=4, prior_width=8)
    with pytest.raises(zoo.ZooError, match="vae has no discriminator"):
        autoencoder.logits(torch.zeros(1, 3, 8, 8))


def test_random_weights_differ_from_call_to_call_and_configs_are_checked():
    first, second = (zoo.create("dcgan", resolution=16) for _ in range(2))
    assert not torch.equal(first.generator.head.weight, second.generator.head.weight)
    assert first.architecture == "dcgan"
    assert all(parameter.device.type == "cpu" for parameter in first.parameters())
    with pytest.raises(zoo.ZooError, match="GiB of weights, at most"):
        zoo.create("dcgan", resolution=1024, generator_width=1024, discriminator_width=1024)


def test_images_of_any_floating_type_are_judged(tiny):
    model = tiny("dcgan")
    images = model.sample(2, seed=0)
    assert torch.equal(model.logits(images.double()), model.logits(images))


def test_truncation_of_styles_leaves_latents_alone(tiny):
    model = tiny("stylegan")
    drawn = [model.latent(2, Noise(0), psi) for psi in (1.0, 0.5, -1.0)]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_two_channels_are_no_image(tiny):
    with pytest.raises(zoo.ZooError, match="channels=2"):
        tiny("dcgan", channels=2)
