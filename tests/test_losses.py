"""Losses and penalties against numbers worked out by hand."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import nn

import zoo
from zoo.losses import ADVERSARIAL, adversarial
from zoo.penalties import clip_weights, gradient_penalty, orthogonality, path_lengths

REAL, FAKE = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [-3.0]])


def sigmoid(value: float) -> float:
    return 1 / (1 + 2.718281828459045**-value)


NONSATURATING = -(log(sigmoid(2)) + log(sigmoid(-1))) / 2 - (log(1 - sigmoid(0.5)) + log(1 - sigmoid(-3))) / 2


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("nonsaturating", NONSATURATING, -(log(sigmoid(0.5)) + log(sigmoid(-3))) / 2),
        ("hinge", (0 + 2) / 2 + (1.5 + 0) / 2, 1.25),
        ("least_squares", 0.5 * ((1 + 4) / 2 + (0.25 + 9) / 2), 0.5 * (0.25 + 16) / 2),
        ("wasserstein", -1.25 - 0.5, 1.25),
    ],
)
def test_adversarial_losses(name, discriminator, generator):
    loss = adversarial(name)
    assert float(loss.discriminator(REAL, FAKE)) == pytest.approx(discriminator, rel=1e-6)
    assert float(loss.generator(FAKE)) == pytest.approx(generator, rel=1e-6)


@pytest.mark.parametrize("name", sorted(ADVERSARIAL))
def test_each_side_pushes_the_logits_its_own_way(name):
    real, fake = (torch.zeros(3, 1, requires_grad=True) for _ in range(2))
    loss = adversarial(name)
    loss.discriminator(real, fake).backward()
    assert (real.grad < 0).all()                                # minimising raises D(x) ...
    assert (fake.grad > 0).all() or name == "least_squares"     # ... and lowers D(G(z)); least squares wants 0 there
    fake.grad = None
    loss.generator(fake).backward()
    assert (fake.grad < 0).all()


def test_large_logits_stay_finite():
    for loss in ADVERSARIAL.values():
        far = torch.tensor([[1e4], [-1e4]])
        assert torch.isfinite(loss.discriminator(far, -far))
        assert torch.isfinite(loss.generator(far))


def test_an_unknown_loss_is_named_with_the_possible_ones():
    with pytest.raises(zoo.ZooError, match=r"'hing'.*Did you mean 'hinge'.*wasserstein"):
        adversarial("hing")


def test_gradient_penalty_of_a_linear_critic_is_its_squared_norm():
    weight = torch.arange(12.0).reshape(1, 12) / 10
    critic = nn.Linear(12, 1, bias=False)
    critic.weight = nn.Parameter(weight)
    penalty = gradient_penalty(lambda images, labels: critic(images.flatten(1)), torch.randn(5, 3, 2, 2), None)
    assert penalty.item() == pytest.approx(float(weight.square().sum()), rel=1e-6)
    penalty.backward()                                          # d ||w||^2 / dw = 2 w: a second derivative gets through
    assert torch.allclose(critic.weight.grad, 2 * weight, atol=1e-5)


def test_gradient_penalty_is_the_mean_over_images_not_of_the_mean_logit():
    images = torch.randn(4, 1, 2, 2)
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0])
    penalty = gradient_penalty(lambda x, labels: x.flatten(1).sum(1) * scale, images, None)
    assert penalty.item() == pytest.approx(4 * float(scale.square().mean()))


def test_gradient_penalty_hands_the_labels_on():
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    slopes = torch.tensor([1.0, 3.0])
    penalty = gradient_penalty(lambda x, labels: x.flatten(1).sum(1) * (labels @ slopes), torch.zeros(2, 1, 1, 1), rows)
    assert penalty.item() == pytest.approx((1 + 9) / 2)


def test_orthogonality_sees_only_what_is_off_the_diagonal():
    assert float(orthogonality([torch.eye(3) * 5])) == 0
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])             # W W^T = [[5, 11], [11, 25]]
    assert float(orthogonality([weight])) == pytest.approx(2 * 11**2)
    assert float(orthogonality([weight, weight.reshape(2, 2, 1, 1), torch.eye(2)])) == pytest.approx(4 * 11**2)


def test_clip_weights_bounds_every_parameter_and_leaves_small_ones():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[5.0, -5.0], [0.02, -0.03]]))
    clip_weights(network, 0.1)
    assert torch.equal(network[0].weight, torch.tensor([[0.1, -0.1], [0.02, -0.03]]))
    assert torch.equal(network[1].weight, torch.full((2,), 0.1))


def test_path_lengths_of_a_linear_map_are_those_of_its_jacobian():
    torch.manual_seed(0)
    n, layers, size, shape = 3, 2, 5, (2, 4, 4)
    jacobian = torch.randn(layers, size, *shape, dtype=torch.float64)
    w = torch.randn(n, layers, size, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(n, *shape, dtype=torch.float64)
    images = torch.einsum("nlw,lwchx->nchx", w, jacobian)
    pulled = torch.einsum("nchx,lwchx->nlw", noise, jacobian) / 4         # J^T y with y = noise / sqrt(4 * 4)
    expected = pulled.square().sum(2).mean(1).sqrt()
    assert torch.allclose(path_lengths(images, w, noise).double(), expected, rtol=1e-5)
