"""Likeness within a set: collapsed models, pairs of one class, and images judged against themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from zoo.data import open_images
from zoo.errors import EvaluationError
from zoo.metrics import pairwise
from zoo.metrics.pairwise import pairs
from zoo.metrics.similarity import ms_ssim
from zoo.model import Model, ModelConfig


class Showing(Model):
    """Shows one real image for each class, or the same for all."""

    Config = ModelConfig
    latent_size = 2

    def __init__(self, images, **config):
        super().__init__(ModelConfig(resolution=16, **config))
        self.network, self.images = nn.Linear(1, 1), images

    def generate(self, z, labels, *, psi, chance):
        kinds = torch.zeros(len(z), dtype=torch.long) if labels is None else labels.argmax(1)
        return self.images[kinds]


@pytest.fixture(scope="module")
def emoji():
    return open_images("emoji", resolution=16, channels=3)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path))


def measured(model, emoji, *metrics, samples=64, reference=64):
    return zoo.evaluate(model, emoji, metrics=metrics, samples=samples, reference=reference)


def test_a_collapsed_model_shows_one_image(emoji):
    model = Showing(emoji.read([5]).float() / 127.5 - 1)
    found = measured(model, emoji, "ms_ssim_diversity", "lpips_diversity", samples=8, reference=16)
    assert found["ms_ssim_diversity"] == pytest.approx(1)
    assert found["lpips_diversity"] == 0
    assert found["ms_ssim_diversity_real"] < 0.5
    assert found["lpips_diversity_real"] > 0.2
    assert found["lpips_diversity_real_std_error"] > 0
    assert set(found.receipt["networks"]) == {"lpips-alex"}


def test_classes_are_compared_within_themselves_if_the_data_have_them(emoji):
    first = [int((emoji.labels == kind).argmax()) for kind in range(8)]
    model = Showing(emoji.read(first).float() / 127.5 - 1, num_classes=8)
    found = measured(model, emoji, "ms_ssim_diversity")
    assert found["ms_ssim_diversity"] == pytest.approx(1)
    without = open_images("emoji", resolution=16, channels=3)
    without.labels, without.classes = None, ()
    mixed = measured(model, without, "ms_ssim_diversity")
    assert mixed["ms_ssim_diversity"] < 0.9      # images of any two classes


def test_images_are_as_unlike_as_themselves(emoji):
    found = measured(emoji, emoji, "ms_ssim_diversity", samples=600, reference=600)
    difference = abs(found["ms_ssim_diversity"] - found["ms_ssim_diversity_real"])
    error = found["ms_ssim_diversity_std_error"] + found["ms_ssim_diversity_real_std_error"]
    assert 0 < difference < 2 * error


def test_every_image_is_in_one_pair_with_one_of_its_class():
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 0, 2, 2])
    images = torch.arange(9).view(9, 1)
    found = [(int(a), int(b)) for a, b in pairs(range(9), labels, lambda i: images[i])]
    assert found == [(0, 2), (1, 4), (5, 6), (3, 7)]
    assert [(int(a), int(b)) for a, b in pairs([4, 0, 8], None, lambda i: images[i])] == [(4, 0)]


def test_values_and_errors_are_those_of_the_pairs(emoji, monkeypatch):
    seen = []

    def watched(a, b):
        seen.append(ms_ssim(a, b))
        return seen[-1]

    monkeypatch.setattr(pairwise, "ms_ssim", watched)
    monkeypatch.setattr(pairwise, "PAIRS", 40)
    found = measured(emoji, emoji, "ms_ssim_diversity", samples=100, reference=100)
    assert [len(each) for each in seen] == [32, 8, 32, 8]
    fake, real = torch.cat(seen[:2]), torch.cat(seen[2:])
    assert found["ms_ssim_diversity"] == pytest.approx(fake.mean().item())
    assert found["ms_ssim_diversity_real_std_error"] == pytest.approx(real.std().item() / 40**0.5)


def test_too_few_images_of_a_class(emoji, tiny):
    with pytest.raises(EvaluationError, match="give 4 of each at least"):
        measured(tiny("dcgan"), emoji, "ms_ssim_diversity", samples=3)
    first = [int((emoji.labels == kind).argmax()) for kind in range(8)]
    with pytest.raises(EvaluationError, match="ms_ssim_diversity_real: fewer than two pairs of images of one class"):
        measured(Showing(emoji.read(first).float() / 127.5 - 1, num_classes=8),
                 emoji.only(torch.tensor(sorted(first)).numpy()), "ms_ssim_diversity", reference=8)  # fmt: skip
