"""Reconstruction and the evidence bound: autoencoders whose answers are known, and the VAE against distributions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.distributions import Laplace, Normal, kl_divergence
from torch.nn.functional import avg_pool2d, interpolate

import zoo
from zoo.data import open_images
from zoo.errors import EvaluationError, Unsupported
from zoo.metrics.lpips import LPIPS
from zoo.metrics.names import metric
from zoo.metrics.reconstruction import MOST_DECIBELS, reconstructed
from zoo.metrics.similarity import psnr, ssim
from zoo.model import Bound, Gaussian, Model, ModelConfig
from zoo.noise import Noise
from zoo.recipe import Batch
from zoo.watchdog.holdout import kept_out
from zoo_vae.bounds import evidence

COUNT = 70      # images: more than are looked at at once


class Pooling(Model):
    """Latents are images made `factor` times smaller, with a mark for the class; any image is as likely as another."""

    Config = ModelConfig

    def __init__(self, factor: int, **config):
        super().__init__(ModelConfig(**{"resolution": 16, **config}))
        self.factor, self.network = factor, nn.Linear(1, 1)

    def encode(self, images):
        smaller = avg_pool2d(images, self.factor)
        return Gaussian(smaller, torch.zeros_like(smaller))

    def decode(self, latents, labels=None, *, clamp=False):
        images = interpolate(latents, scale_factor=self.factor)
        return images if labels is None else images + 0.01 * labels.view(-1, 1, 1, 1)

    def bound(self, images, labels=None, *, noise):
        inside = images.abs() <= 1 + 1 / 255 + 1e-6
        surprise = torch.where(inside, torch.tensor(256 * 2 / 255).log(), torch.inf)
        return Bound(surprise.flatten(1).sum(1), 0 * images.flatten(1).sum(1) + 3)


@pytest.fixture(scope="module")
def emoji():
    return open_images("emoji", resolution=16, channels=3)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))


def measured(name, model, images, places=range(COUNT), held_out=None):
    return metric(name)(model=model, images=images, places=list(places), held_out=held_out, seed=0)


def test_an_autoencoder_that_loses_nothing(emoji):
    found = measured("reconstruction", Pooling(1), emoji)
    assert found == pytest.approx({"psnr": MOST_DECIBELS, "psnr_std_error": 0, "ssim": 1, "ssim_std_error": 0})
    assert measured("reconstruction_lpips", Pooling(1), emoji, range(5)) == {"lpips": 0, "lpips_std_error": 0}


def test_what_is_lost_is_measured(emoji):
    images = emoji.read(range(COUNT)).float() / 127.5 - 1
    lost = interpolate(avg_pool2d(images, 2), scale_factor=2)
    lost = ((lost + 1) * 127.5).round() / 127.5 - 1
    found = measured("reconstruction", Pooling(2), emoji)
    for name, values in (("psnr", psnr(images, lost)), ("ssim", ssim(images, lost))):
        assert found[name] == pytest.approx(values.mean().item())
        assert found[f"{name}_std_error"] == pytest.approx(values.std().item() / COUNT**0.5)
    assert measured("reconstruction", Pooling(4), emoji)["psnr"] < found["psnr"] < 40
    large = [interpolate(each[:5], size=(64, 64), mode="bilinear") for each in (images, lost)]
    seen = measured("reconstruction_lpips", Pooling(2), emoji, range(5))
    assert seen["lpips"] == pytest.approx(LPIPS("alex")(*large).mean().item(), rel=1e-4)
    assert seen["lpips"] > 0.05


def test_a_model_with_classes_decodes_each_image_as_its_own(emoji):
    model = Pooling(1, num_classes=8)
    places = [3, 200, 1500]
    ((real, made),) = reconstructed(model, emoji, places)
    expected = (real + 0.01 * torch.from_numpy(emoji.labels[places]).view(-1, 1, 1, 1)).clamp(-1, 1)
    torch.testing.assert_close(made, expected, atol=1 / 255, rtol=0)
    assert len(set(emoji.labels[places])) > 1
    for name in ("reconstruction", "elbo"):
        with pytest.raises(EvaluationError, match="of 5 classes, but emoji has 8: give data of its classes"):
            measured(name, Pooling(1, num_classes=5), emoji)


def test_images_kept_out_of_the_training_are_looked_at_alone(emoji):
    held_out = torch.arange(COUNT) >= COUNT - 10
    for name in ("reconstruction", "reconstruction_lpips", "elbo"):
        few = measured(name, Pooling(2), emoji, held_out=held_out)
        assert few == measured(name, Pooling(2), emoji, range(COUNT - 10, COUNT))
        alone = torch.arange(20) == 5      # too few for an error
        every = measured(name, Pooling(2), emoji, range(20))
        assert measured(name, Pooling(2), emoji, range(20), held_out=alone) == every


def test_a_run_knows_which_images_it_has_not_seen(tmp_path):
    run = zoo.train(built(), "emoji", kimg=0.008, batch=8, out=tmp_path / "run", hold_out=70)
    found = zoo.evaluate(run, "emoji", metrics=["reconstruction"], samples=2)
    assert found.receipt["model"]["held_out"] == 70
    images = open_images("emoji", resolution=16, channels=3)
    assert found["psnr"] == measured("reconstruction", run.model, images, kept_out(len(images), 70).tolist())["psnr"]


def test_a_model_without_an_encoder_or_a_likelihood_says_so(emoji, tiny):
    for name in ("reconstruction", "reconstruction_lpips"):
        with pytest.raises(Unsupported, match="dcgan has no encoder; architectures with one: vae"):
            zoo.evaluate(tiny("dcgan"), emoji, metrics=[name], samples=4)
    with pytest.raises(Unsupported, match="DCGAN gives images no likelihood"):
        zoo.evaluate(tiny("dcgan"), emoji, metrics=["elbo"], samples=4)
    with pytest.raises(EvaluationError, match="asks for the model, but the fakes were given as images"):
        zoo.evaluate(emoji, emoji, metrics=["reconstruction"], samples=4)


def test_a_diverged_decoder_is_named(emoji):
    model = Pooling(1)
    model.decode = lambda latents: latents * torch.nan
    with pytest.raises(EvaluationError, match="decodes NaN or infinity"):
        measured("reconstruction", model, emoji)


def test_to_find_all_images_alike_takes_8_bits_a_number(emoji):
    found = measured("elbo", Pooling(1), emoji)
    assert found["bits_per_dim"] == pytest.approx(8 + 3 / (768 * torch.tensor(2.0).log().item()))
    assert found["nelbo_kl"] == 3
    assert found["nelbo"] == pytest.approx(found["nelbo_reconstruction"] + 3)
    assert found["nelbo_std_error"] == pytest.approx(0, abs=1e-6)


def test_latents_that_tell_images_apart_are_active(emoji):
    class Three(Pooling):
        def encode(self, images):
            brightness = images.mean((1, 2, 3))      # its variance over these images is 0.0064
            return Gaussian(torch.stack([2 * brightness, 0 * brightness + 5, brightness], 1), torch.ones(1))

    assert measured("elbo", Three(1), emoji)["active_units"] == 1


SMALL = {"resolution": 16, "width": 4, "widest": 8, "latent": 5, "prior_width": 8, "prior_steps": 2}


def built(**settings):
    torch.manual_seed(0)
    return zoo.create("vae", **{**SMALL, "free_bits": 0.0, "warmup": 0.0, **settings})


@pytest.mark.parametrize("likelihood", ["laplace", "gaussian"])
@pytest.mark.parametrize("classes", [0, 3])
def test_the_vaes_bound_is_that_of_its_distributions(likelihood, classes):
    model = built(likelihood=likelihood, prior="normal", scale=0.4, num_classes=classes)
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    labels = torch.arange(6) % classes if classes else None
    found = model.bound(images, labels, noise=Noise(1))
    mean, std = model.encode(images)
    latents = mean + std * Noise(1).normal(6, 5)
    centre = model.decode(latents, labels).double()
    given = Laplace(centre, 0.4) if likelihood == "laplace" else Normal(centre, 0.4**0.5)
    expected = -given.log_prob(images.double()).sum((1, 2, 3))
    torch.testing.assert_close(found.reconstruction, expected, rtol=1e-6, atol=0)
    nearness = kl_divergence(Normal(mean.double(), std.double()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(found.divergence, nearness, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prior", ["normal", "flow"])
def test_the_vaes_bound_is_what_it_minimises(prior):
    model = built(prior=prior)
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = model.bound(images, noise=Noise(1))
    with torch.no_grad():
        terms = evidence(model, Batch(images, None, Noise(1))).terms.minimise
    assert found.reconstruction.mean().item() == pytest.approx(768 * terms["reconstruction"].item(), rel=1e-5)
    assert found.divergence.mean().item() == pytest.approx(768 * terms["divergence"].item(), rel=1e-4)
    spoilt = built(prior=prior).follow(("decoder",))
    for parameter in spoilt.averages["decoder"].parameters():
        parameter.data.zero_()
    assert not torch.equal(spoilt.bound(images, noise=Noise(1)).reconstruction, found.reconstruction)      # averaged


def test_the_bundled_vae_from_data_to_receipt():
    found = zoo.evaluate("vae", "emoji:-smileys-emotion", metrics=("reconstruction", "elbo"), samples=2, reference=64)
    assert 20 < found["psnr"] < 35
    assert 3 < found["bits_per_dim"] < 8
    assert found["active_units"] > 10
    assert found["nelbo"] == pytest.approx(found["nelbo_reconstruction"] + found["nelbo_kl"])
    assert found.receipt["features"] is None
    again = zoo.evaluate("vae", "emoji:-smileys-emotion", metrics=("elbo",), samples=2, reference=64)
    assert again["nelbo"] == found["nelbo"]


def test_autoencoders_without_classes_refuse_labels():
    for variant in ("kl", "tiny"):
        small = {"kl": {"widths": (8, 8), "norm_groups": 4}, "tiny": {"encoder_width": 8, "decoder_width": 8}}[variant]
        model = zoo.create("vae", variant=variant, resolution=16, **small)
        latents = model.encode(torch.zeros(2, 3, 16, 16)).mean
        with pytest.raises(zoo.ZooError, match="has no classes: leave labels out"):
            model.decode(latents, [0, 1])
        with pytest.raises(Unsupported, match="gives images no likelihood"):
            model.bound(torch.zeros(2, 3, 16, 16), noise=Noise(0))
