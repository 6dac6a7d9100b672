"""AutoencoderKL and TAESD as models of ours: any size, raw images, scaled latents, and training."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

import zoo
from zoo.noise import Noise
from zoo.recipe import Batch
from zoo.testing import CHECKS, check_architecture
from zoo_vae import spatial
from zoo_vae.kl import AutoencoderKL, KLConfig
from zoo_vae.tiny import TinyAutoencoder, TinyConfig

SMALL = {
    "kl": {"variant": "kl", "widths": (8, 8), "depth": 1, "norm_groups": 4, "latent_channels": 3},
    "tiny": {"variant": "tiny", "encoder_width": 8, "decoder_width": 12, "encoder_blocks": (1, 1),
             "decoder_blocks": (1, 1)},
}  # fmt: skip
kinds = pytest.mark.parametrize("kind", SMALL)


def build(kind: str, **settings) -> zoo.Model:
    torch.manual_seed(0)
    return zoo.create("vae", **{"resolution": 16, **SMALL[kind], **settings})


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("kl", {}),
        ("kl", {"channels": 1, "mid_attention": False, "attention_levels": (1,), "quant_conv": False,
                "post_quant_conv": False, "shift_factor": 0.1}),
        ("tiny", {}),
        ("tiny", {"channels": 4, "mixing": True, "scaling_factor": 0.5}),
    ],
)  # fmt: skip
def test_they_keep_the_contract_of_an_architecture(kind, settings):
    passed = check_architecture("vae", resolution=16, **{**SMALL[kind], **settings})
    assert passed == [check.__name__ for check in CHECKS]


@kinds
def test_any_size_that_the_factor_divides_is_encoded_and_decoded(kind):
    model = build(kind)
    mean, std = model.encode(torch.rand(2, 3, 6, 10) * 2 - 1)
    assert mean.shape == std.shape == (2, model.config.latent_channels, 3, 5)
    assert bool((std > 0).all()) == (kind == "kl")
    assert model.decode(mean).shape == (2, 3, 6, 10)


@kinds
def test_decode_is_raw_unless_clamped(kind):
    model = build(kind)
    torch.nn.init.constant_(model.decoder.to_image.bias, 5.0)
    latents = torch.zeros(1, model.config.latent_channels, 2, 2)
    assert model.decode(latents).max() > 1
    assert model.decode(latents, clamp=True).max() == 1


@kinds
def test_work_in_parts_changes_nothing(kind, monkeypatch):
    model = build(kind)
    images = torch.rand(5, 3, 8, 8) * 2 - 1
    whole = model.encode(images).mean
    monkeypatch.setattr(spatial, "PIXELS", 2 * 8 * 8)
    torch.testing.assert_close(model.encode(images).mean, whole)
    torch.testing.assert_close(model.decode(whole), torch.cat([model.decode(row[None]) for row in whole]))


def test_z_are_scaled_latents():
    model = build("kl", scaling_factor=0.25, shift_factor=0.5)
    z = torch.randn(2, 3, 8, 8)
    assert torch.equal(model.sample(z=z, clamp=False), model.decode(z / 0.25 + 0.5))
    torch.testing.assert_close(model.unscale_latents(model.scale_latents(z)), z)
    tiny = build("tiny", scaling_factor=0.25, shift_factor=0.5)
    z = torch.randn(2, 4, 8, 8)
    assert torch.equal(tiny.sample(z=z, clamp=False), tiny.decode(z / 0.25 + 0.5))


def test_numbers_in_0_to_1_hold_tinys_latents():
    model = build("tiny", latent_magnitude=2.0)
    latents = torch.linspace(-3, 3, 16).reshape(1, 4, 2, 2)
    scaled = model.scale_latents(latents)
    assert (scaled.min(), scaled.max()) == (0, 1)
    torch.testing.assert_close(model.unscale_latents(scaled), latents.clamp(-2, 2))


@kinds
def test_what_does_not_fit_is_refused_in_one_line(kind):
    model = build(kind)
    channels = model.config.latent_channels
    wrong = (torch.zeros(1, 3, 7, 8), torch.zeros(1, 1, 8, 8), torch.zeros(3, 8, 8), torch.zeros(0, 3, 8, 8), "x")
    for images in wrong:
        with pytest.raises(zoo.ZooError, match=r"this VAE encodes \[N, 3, H, W\] with H and W multiples of 2"):
            model.encode(images)
    for method in (model.decode, model.scale_latents, model.unscale_latents):
        for shape in ((1, channels + 1, 2, 2), (1, channels), (1, channels, 0, 2), (0, channels, 2, 2)):
            with pytest.raises(zoo.ZooError, match=rf"this VAE takes \[N, {channels}, h, w\]"):
                method(torch.zeros(shape))
    with pytest.raises(zoo.ZooError, match=rf"this model takes latents \[N, {channels}, 8, 8\]"):
        model.sample(z=torch.zeros(1, channels, 4, 4))


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (KLConfig, {"resolution": 12}, "4 levels take multiples of 8"),
        (KLConfig, {"widths": ()}, "at least 1 item"),
        (KLConfig, {"widths": (8, True)}, "valid integer"),
        (KLConfig, {"norm_groups": 12}, "does not divide all widths"),
        (KLConfig, {"attention_levels": (4,)}, "the last level is 3"),
        (KLConfig, {"latent_std": (1.0, 1.0, 0.0, 1.0)}, "greater than 0"),
        (KLConfig, {"num_classes": 3}, "Input should be 0"),
        (TinyConfig, {"encoder_blocks": (1, 1)}, "encoder_blocks has 2 stages, decoder_blocks 4"),
        (TinyConfig, {"resolution": 12}, "4 stages take multiples of 8"),
    ],
)
def test_impossible_configurations_are_refused(config, settings, message):
    with pytest.raises(ValidationError, match=message):
        config(**settings)


def test_the_divergence_is_that_from_a_standard_normal():
    model = build("kl", kl_weight=0.5)
    assert isinstance(model, AutoencoderKL)
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    mean, std = model.encode(images)
    posterior, prior = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    divergence = torch.distributions.kl_divergence(posterior, prior).sum((1, 2, 3)).mean().item()
    (phase,) = model.recipe().phases
    terms = phase.loss(model, Batch(images, None, Noise(0)))
    assert terms.watch["kl"].item() == pytest.approx(divergence, rel=1e-4)
    assert terms.minimise["divergence"].item() == pytest.approx(0.5 * divergence / (3 * 16 * 16), rel=1e-4)
    latents = mean + std * Noise(0).normal(3, *mean.shape[1:])
    error = (model.decode(latents) - images).abs().mean().item()
    assert terms.minimise["reconstruction"].item() == pytest.approx(error, rel=1e-4)


@kinds
def test_training_lowers_the_error(kind):
    model = build(kind)
    assert isinstance(model, AutoencoderKL | TinyAutoencoder)
    images = torch.tensor([0.8, -0.6])[:, None, None, None].expand(2, 3, 16, 16)
    (phase,) = model.recipe().phases
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    errors = []
    for step in range(40):
        terms = phase.loss(model, Batch(images, None, Noise(step)))
        optimizer.zero_grad()
        terms.total().backward()
        optimizer.step()
        errors.append(terms.minimise["reconstruction"].item())
    assert errors[-1] < 0.6 * errors[0]
