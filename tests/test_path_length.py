"""Perceptual path length: models whose path length is known, the trimmed mean, and the bundled StyleGAN."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from zoo.data import open_images
from zoo.errors import EvaluationError, Unsupported
from zoo.metrics import path_length
from zoo.metrics.path_length import on_sphere, path_lengths, trimmed_mean
from zoo.model import Model, ModelConfig

SMALL3 = {"resolution": 16, "latent": 8, "w": 8, "channel_base": 128, "channel_max": 16, "layers": 4}


class Linear(Model):
    """Images [N, 1, 4, 4] are a matrix times z, or times a style, which is 2 z; more for later classes; plus noise."""

    Config = ModelConfig

    def __init__(self, matrix, *, mark=0.0, noise=0.0, **config):
        super().__init__(ModelConfig(resolution=4, channels=1, **config))
        self.network = nn.Linear(1, 1)
        self.latent_size = matrix.shape[1]
        self.matrix, self.mark, self.noise = matrix, mark, noise

    def generate(self, z, labels, *, psi, chance):
        images = (z @ self.matrix.T).unflatten(1, (1, 4, 4))
        if labels is not None:
            images = images * (1 + self.mark * labels.argmax(1).view(-1, 1, 1, 1))
        return images + self.noise * chance.normal(len(z), 1, 4, 4)

    def styles(self, z, labels=None, *, psi=1.0):
        return 2 * z * psi

    def synthesise(self, styles, *, seed=None, clamp=True):
        return self.sample(z=styles, seed=seed, clamp=clamp)


def squared(a, b):
    return (a.double() - b.double()).square().flatten(1).sum(1)


def orthogonal(latent):
    """A matrix [16, latent] that keeps lengths."""
    return torch.linalg.qr(torch.randn(16, latent, generator=torch.Generator().manual_seed(0)))[0]


def test_a_line_is_as_long_as_its_ends_are_apart():
    matrix = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    model = Linear(matrix)
    full, end = (path_lengths(model, 4000, squared, space="w", full=each) for each in (True, False))
    expected = 4 * 2 * matrix.square().sum().item()      # styles are twice the latents; E|a - b|^2 = 2
    assert full.mean().item() == pytest.approx(expected, rel=0.06)
    torch.testing.assert_close(full, end, rtol=0.02, atol=0)      # on a line it does not matter where


@pytest.mark.parametrize("full", [True, False])
def test_an_arc_is_as_long_as_its_angle(full):
    """E of |dz/dt|^2 = angle^2 |z|^2 + (|b| - |a|)^2 for normal a and b in three dimensions."""
    found = path_lengths(Linear(orthogonal(3)), 6000, squared, space="z", full=full).mean().item()
    angle, length, squared_mean = (pi**2 - 4) / 2, 3, 8 / pi      # E angle^2, E|a|^2, (E|a|)^2
    along = 2 / 3 * length + 1 / 3 * squared_mean if full else length
    assert found == pytest.approx(angle * along + 2 * (length - squared_mean), rel=0.05)


def test_the_way_on_the_sphere():
    a, b = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 5.0], [0.0, 1.0]])
    at = [on_sphere(a, b, torch.full((2,), t)) for t in (0.0, 0.5, 1.0)]
    half = 4 / 2**0.5
    assert torch.stack(at)[:, 0].tolist() == [pytest.approx(each) for each in ([3, 0], [half, half], [0, 5])]
    assert torch.stack(at)[:, 1].tolist() == [pytest.approx([0, 1])] * 3      # nothing to turn by
    spatial = torch.randn(2, 3, 4, 4)
    assert on_sphere(spatial, spatial.flip(0), torch.rand(2)).shape == spatial.shape


def test_both_images_of_a_path_have_the_same_class_and_noise():
    matrix, labels = orthogonal(4), torch.arange(100) % 3
    plain = path_lengths(Linear(matrix), 100, squared, space="z", full=True)
    noisy = path_lengths(Linear(matrix, noise=1.0), 100, squared, space="z", full=True)
    torch.testing.assert_close(noisy, plain, rtol=0.05, atol=1e-3)
    marked = Linear(matrix, mark=1.0, num_classes=3)
    found = path_lengths(marked, 100, squared, space="z", full=True, labels=labels)
    torch.testing.assert_close(found, plain * (1 + labels) ** 2, rtol=0.01, atol=1e-5)


def test_the_first_paths_are_the_same_however_many_there_are():
    model = Linear(orthogonal(4))
    many, few = (path_lengths(model, n, squared, space="z", full=True, seed=5) for n in (150, 70))
    torch.testing.assert_close(many[:70], few)
    assert not torch.equal(path_lengths(model, 70, squared, space="z", full=True, seed=6), few)


def test_the_mean_leaves_out_the_paths_beyond_the_percentiles():
    values = torch.rand(1234, generator=torch.Generator().manual_seed(0)).double().exp()
    values[:3] = torch.tensor([-50.0, 900.0, 1e6])
    found = trimmed_mean("ppl", values)
    low = np.percentile(values.numpy(), 1, method="lower")
    high = np.percentile(values.numpy(), 99, method="higher")
    kept = values[(values >= low) & (values <= high)]
    assert 0 < 1234 - len(kept) < 30
    assert found["ppl"] == pytest.approx(kept.mean().item())
    assert found["ppl_std_error"] == pytest.approx(values.clamp(low, high).std().item() / 1234**0.5, rel=0.03)
    with pytest.raises(EvaluationError, match="give 2 samples at least"):
        trimmed_mean("ppl", values[:1])


def test_what_always_shows_the_same_has_no_length(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    model, emoji = Linear(torch.zeros(16, 2)), open_images("emoji", resolution=4, channels=1)
    found = zoo.evaluate(model, emoji, metrics=("ppl_zfull", "ppl_wend"), samples=4, reference=2)
    assert set(found.values.values()) == {0.0}
    assert set(found.receipt["networks"]) == {"lpips-vgg"}


def test_a_diverged_model_is_named():
    with pytest.raises(EvaluationError, match="makes NaN or infinity"):
        path_lengths(Linear(torch.full((16, 2), torch.inf)), 4, squared, space="z", full=True)


def test_a_model_without_styles_has_no_path_in_w(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))
    with pytest.raises(Unsupported, match="dcgan has no mapping to styles; architectures with one: stylegan"):
        zoo.evaluate(tiny("dcgan"), "emoji", metrics=["ppl_wfull"], samples=2, reference=2)


@pytest.mark.parametrize("name", ["stylegan", "stylegan3"])
def test_the_step_is_neither_too_long_nor_lost_in_rounding(name, tiny, monkeypatch):
    model = tiny(name) if name == "stylegan" else zoo.create(name, **SMALL3)
    lengths = {}
    for epsilon in (1e-3, 1e-4):
        monkeypatch.setattr(path_length, "EPSILON", epsilon)
        lengths[epsilon] = [path_lengths(model, 8, squared, space=space, full=True).mean().item() for space in "zw"]
    assert min(lengths[1e-4]) > 0
    assert lengths[1e-4] == pytest.approx(lengths[1e-3], rel=0.02)
