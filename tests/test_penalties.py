"""Penalties against closed forms and finite differences, and the regularisers made of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

import zoo
from zoo.adversarial import fakes
from zoo.judged import Judged
from zoo.noise import Noise
from zoo.penalties import (
    around,
    gradient_norms,
    gradient_penalty,
    interpolates,
    lecam,
    norm_penalty,
    orthogonality,
)
from zoo.recipe import Batch
from zoo.regularisers import (
    DECAY,
    LOGITS,
    GradientPenalty,
    LeCam,
    Orthogonal,
    follow_logits,
    remember_logits,
)
from zoo.weights import load, save


def linear(weight):
    """The critic D(x) = w x + b, whose gradient is w everywhere."""
    return lambda images, labels: images.flatten(1) @ weight[:, None] + 3.0


@pytest.mark.parametrize("length", [0.5, 1.0, 2.5])
def test_a_linear_critics_norm_is_that_of_its_weight(length):
    weight = torch.arange(1.0, 13.0)
    weight = (length * weight / weight.norm()).requires_grad_(True)
    images = torch.randn(5, 3, 2, 2)
    assert torch.allclose(gradient_norms(linear(weight), images, None), torch.full((5,), length))
    penalty = norm_penalty(linear(weight), images, None)
    assert float(penalty.detach()) == pytest.approx((length - 1) ** 2, abs=1e-6)
    (slope,) = torch.autograd.grad(penalty, weight)             # a second derivative: 2 (||w|| - 1) w / ||w||
    assert torch.allclose(slope, 2 * (length - 1) * weight.detach() / length, atol=1e-5)
    one_sided = float(norm_penalty(linear(weight), images, None, one_sided=True).detach())
    assert one_sided == pytest.approx(max(0.0, length - 1) ** 2, abs=1e-6)
    centred = float(norm_penalty(linear(weight), images, None, target=0).detach())
    assert centred == pytest.approx(length**2, rel=1e-5)
    assert centred == pytest.approx(float(gradient_penalty(linear(weight), images, None).detach()), rel=1e-6)


@pytest.mark.parametrize("given", [{}, {"target": 0.0}, {"target": 0.3, "one_sided": True}])
def test_the_derivative_of_a_penalty_is_what_finite_differences_give(given):
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    images = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    names = [name for name, _ in critic.named_parameters()]

    def penalty(*values):
        return norm_penalty(
            lambda x, labels: functional_call(critic, dict(zip(names, values)), (x,)), images, None, **given
        )

    assert torch.autograd.gradcheck(penalty, tuple(critic.parameters()))


def test_a_critic_that_does_not_care_has_finite_derivatives():
    weight = torch.zeros(12, requires_grad=True)
    (slope,) = torch.autograd.grad(norm_penalty(linear(weight), torch.randn(2, 3, 2, 2), None), weight)
    assert torch.equal(slope, torch.zeros(12))


def test_interpolates_lie_on_the_line_at_one_place_for_each_image():
    real, fake = torch.zeros(64, 3, 2, 2), torch.full((64, 3, 2, 2), 2.0)
    points = interpolates(real, fake, Noise(0))
    assert torch.equal(points, points[:, :1, :1, :1].expand_as(points))
    assert 0 <= float(points.min()) < 0.2
    assert 1.8 < float(points.max()) <= 2
    assert torch.allclose(interpolates(real + 1, real + 1, Noise(0)), real + 1)


def test_interpolates_are_the_same_however_the_batch_is_shared_out():
    real, fake = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2)
    whole = interpolates(real, fake, Noise(5))
    for share in range(2):
        part = interpolates(real[share::2], fake[share::2], Noise(5, share=share, shares=2))
        assert torch.equal(part, whole[share::2])


def test_around_is_noise_as_strong_as_half_the_images_deviation():
    images = torch.randn(64, 3, 8, 8) * 0.4
    assert float((around(images, Noise(0)) - images).std()) == pytest.approx(0.2, rel=0.05)
    flat = torch.full((2, 3, 4, 4), 0.5)
    assert torch.equal(around(flat, Noise(0)), flat)


def test_lecam_counts_what_is_beyond_the_others_mean():
    real, fake = torch.tensor([[3.0], [-1.0]]), torch.tensor([[0.0], [-2.0]])
    value = lecam(real, fake, torch.tensor(1.0), torch.tensor(-0.5))
    assert float(value) == pytest.approx((3.5**2 + 0) / 2 + (1 + 9) / 2)
    assert float(lecam(real, fake, torch.tensor(-5.0), torch.tensor(5.0))) == 0


@pytest.fixture
def judged(tiny):
    """A tiny DCGAN and, for a number of calls, the same batch as its discriminator's turn sees it."""
    model = tiny("dcgan", num_classes=2).eval()
    torch.manual_seed(1)
    images, labels = torch.rand(4, 3, 16, 16) * 2 - 1, torch.eye(2).repeat(2, 1)
    return model, lambda: Judged(model, Batch(images, labels, Noise(1)), fakes)


def test_gradient_penalties_are_taken_where_they_say(judged):
    model, turn = judged
    labels = turn().batch.labels

    def at(points, target=1.0):
        return 10 * float(norm_penalty(model.discriminator, points, labels, target=target).detach())

    def value(**given):
        return float(GradientPenalty(**given)(turn()).minimise["gradient_penalty"].detach())

    seen = turn()
    fake = seen.fake
    assert value() == pytest.approx(at(interpolates(seen.real, fake, seen.batch.noise)), rel=1e-5)
    assert value(at="around") == pytest.approx(at(around(seen.real, Noise(1))), rel=1e-5)
    assert value(at="reals") == pytest.approx(at(seen.real), rel=1e-5)
    assert value(at="fakes", target=0.0) == pytest.approx(at(fake, target=0.0), rel=1e-5)


def test_lecam_remembers_the_logits_that_a_turn_watches(judged, tmp_path):
    model, turn = judged
    with pytest.raises(zoo.ZooError, match="remember_logits"):
        LeCam()(turn())
    remember_logits(model)
    assert float(LeCam()(turn()).minimise["lecam"].detach()) == 0      # nothing is known yet
    watched = [{"logits_real": torch.tensor(real), "logits_fake": torch.tensor(-real)} for real in (2.0, 5.0)]
    follow_logits(model, watched[0])
    seen = turn()
    expected = 0.3 * lecam(seen.on_real, seen.on_fake, torch.tensor(2.0), torch.tensor(-2.0))
    assert float(LeCam()(seen).minimise["lecam"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    follow_logits(model, watched[1])
    real, fake, seen = model.get_buffer(LOGITS)
    assert float(real / seen) == pytest.approx((DECAY * 2 + 5) / (DECAY + 1), rel=1e-5)
    assert float(fake / seen) == pytest.approx(-(DECAY * 2 + 5) / (DECAY + 1), rel=1e-5)
    again = tuple(model.get_buffer(LOGITS).tolist())
    remember_logits(model)                                      # a resumed training asks again
    assert tuple(model.get_buffer(LOGITS).tolist()) == again
    load(save(model, tmp_path / "out"))                         # strict, and without


def test_orthogonal_leaves_embeddings_out(judged):
    model, turn = judged
    weights = [weight for weight in model.generator.parameters() if weight.ndim > 1]
    value = Orthogonal()(turn()).minimise["orthogonal"].detach()
    assert float(value) == pytest.approx(1e-4 * float(orthogonality(weights).detach()), rel=1e-5)
    left = Orthogonal(skip=("head.*",))(turn()).minimise["orthogonal"].detach()
    assert float(value - left) == pytest.approx(
        1e-4 * float(orthogonality([model.generator.head.weight]).detach()), rel=1e-3
    )
    assert math.isfinite(float(value))
