"""Diversity objectives, packing and unrolling against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from zoo.adversarial import DiscriminatorLoss, GeneratorLoss, fakes
from zoo.diversity import Bures, FeatureMatching, ModeSeeking, bures, feature_matching, features, mode_seeking
from zoo.judged import Judged
from zoo.losses import adversarial
from zoo.noise import Noise
from zoo.packing import Packed, pack, packed
from zoo.recipe import Batch
from zoo.unrolled import Unrolled, unrolled

GANS = {
    "dcgan": {"latent": 8, "generator_width": 8, "discriminator_width": 8},
    "stylegan": {"latent": 16, "w": 16, "mapping_layers": 2, "channel_base": 128, "channel_max": 16},
    "biggan": {"width": 4},
    "r3gan": {"latent": 8, "channel_base": 512, "channel_max": 32, "blocks": 1},
}

def test_mode_seeking_is_the_inverse_of_how_far_images_move():
    z_one, z_other = torch.randn(8, 4), torch.randn(8, 4)
    value = mode_seeking(3 * z_one, 3 * z_other, z_one, z_other)
    assert float(value) == pytest.approx(1 / (3 + 1e-5), rel=1e-5)
    assert float(mode_seeking(z_one, z_one, z_one, z_other)) == pytest.approx(1e5, rel=1e-5)      # collapse


def root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T


def covariance(features):
    unit = nn.functional.normalize(features, dim=1)
    return torch.cov(unit.T, correction=0)


def test_bures_is_the_distance_of_the_covariances():
    torch.manual_seed(0)
    one, other, mixed = (torch.randn(n, 5, dtype=torch.float64) for n in (40, 30, 5))
    other = other @ mixed
    a, b = covariance(one), covariance(other)
    expected = torch.trace(a + b - 2 * root(root(a) @ b @ root(a)))
    assert float(bures(one, other)) == pytest.approx(float(expected), rel=1e-9)
    assert float(bures(other, one)) == pytest.approx(float(expected), rel=1e-9)
    assert float(bures(one[torch.randperm(40)], other)) == pytest.approx(float(expected), rel=1e-9)
    assert float(bures(one, 7 * one)) == pytest.approx(0, abs=1e-12)      # lengths do not count
    collapsed = one[:1].expand(40, 5)
    assert float(bures(one, collapsed)) == pytest.approx(float(torch.trace(a)), rel=1e-9)


def test_the_derivatives_of_the_distances_are_what_finite_differences_give():
    torch.manual_seed(0)
    one, other = (torch.randn(4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(bures, (one, other))
    assert torch.autograd.gradcheck(feature_matching, (one, other))
    z_one, z_other = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    assert torch.autograd.gradcheck(lambda x, y: mode_seeking(x, y, z_one, z_other), (one, other))


def test_feature_matching_sees_means_alone():
    one, other = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    assert float(feature_matching(one, other)) == pytest.approx(9)
    assert float(feature_matching(one, one.flip(0))) == 0


@pytest.mark.parametrize("name", sorted(GANS))
def test_features_are_what_the_last_layer_sees(name):
    torch.manual_seed(0)
    model = zoo.create(name, resolution=16, num_classes=2, **GANS[name]).eval()
    images, labels = torch.randn(4, 3, 16, 16), torch.eye(2).repeat(2, 1)
    seen = features(model.discriminator, images, labels)
    assert seen.shape[0] == 4
    assert seen.shape[1] > 2                                    # images', not the labels'
    assert not any(module._forward_pre_hooks for module in model.modules())
    if name == "dcgan":
        head = model.discriminator.head
        logits = seen @ head.weight.flatten(1).T + head.bias
        assert torch.allclose(logits, model.discriminator(images, labels), atol=1e-5)
    if name == "biggan":
        wanted = model.discriminator.linear(seen) + (model.discriminator.embedding(labels) * seen).sum(1, keepdim=True)
        assert torch.allclose(wanted, model.discriminator(images, labels), atol=1e-5)


def test_a_critic_without_a_layer_has_no_features():
    with pytest.raises(zoo.ZooError, match="Plain has no layer"):
        features(Plain(), torch.randn(2, 3), None)


class Plain(nn.Identity):
    def forward(self, images, labels):
        return images


@pytest.fixture
def small(tiny):
    model = tiny("dcgan", num_classes=2).eval()
    torch.manual_seed(1)
    return model, Batch(torch.rand(4, 3, 16, 16) * 2 - 1, torch.eye(2).repeat(2, 1), Noise(1))


@pytest.mark.parametrize("part", [ModeSeeking(), Bures(), FeatureMatching()])
def test_parts_move_the_generator_and_scale_with_their_weight(small, part):
    model, batch = small
    model.discriminator.requires_grad_(False)

    def value(each):
        seen = Judged(model, Batch(batch.images, batch.labels, Noise(1)), fakes, moves=True)
        (term,) = each(seen).minimise.values()
        return term

    term = value(part)
    term.backward()
    assert model.generator.head.weight.grad.abs().sum() > 0
    assert float(value(type(part)(3.0)).detach()) == pytest.approx(3 * float(term.detach()), rel=1e-5)


# Packing.


def test_packs_hold_distant_rows_side_by_side():
    images = torch.arange(6.0)[:, None, None, None].expand(6, 2, 2, 2)
    packs = packed(images, 3)
    assert packs.shape == (2, 6, 2, 2)
    assert packs[:, :, 0, 0].tolist() == [[0, 0, 2, 2, 4, 4], [1, 1, 3, 3, 5, 5]]
    assert torch.equal(packed(images, 1), images)
    with pytest.raises(zoo.ZooError, match="6 images do not make packs of 4"):
        packed(images, 4)


def test_a_packed_critic_sees_the_mean_label_of_a_pack():
    class Seen(nn.Module):
        def forward(self, images, labels):
            return torch.cat([images.mean((2, 3)), labels], 1)

    images, labels = torch.arange(4.0)[:, None, None, None].expand(4, 1, 2, 2), torch.eye(2)[[0, 1, 1, 1]]
    seen = Packed(Seen(), 2)(images, labels)
    assert seen.tolist() == [[0, 2, 0.5, 0.5], [1, 3, 0, 1]]


@pytest.mark.parametrize("name", sorted(GANS))
def test_every_built_in_gan_plays_with_packs(name):
    torch.manual_seed(0)
    model = zoo.create(name, resolution=16, num_classes=2, **GANS[name])
    assert pack(model, 2) is model
    assert model.fresh == ("discriminator",)
    batch = Batch(torch.rand(4, 3, 16, 16) * 2 - 1, torch.eye(2).repeat(2, 1), Noise(1))
    assert model.discriminator(batch.images, batch.labels).shape == (2, 1)
    for phase in model.recipe().phases:
        assert torch.isfinite(phase.loss(model, batch).total())
    with pytest.raises(zoo.ZooError, match="m=1"):
        pack(model, 1)


# Unrolling.


class Linear(nn.Module):
    """D(x) = w . x, whose gradient in w is x."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images, labels):
        return images.flatten(1) @ self.weight[:, None]


def test_unrolled_steps_of_a_linear_critic():
    torch.manual_seed(0)
    weight = torch.randn(4, dtype=torch.float64)
    critic = Linear(weight.clone())
    real, fake = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    loss = adversarial("wasserstein")
    ahead = unrolled(critic, real, fake, None, loss=loss, steps=3, rate=0.1)["weight"]
    difference = fake.detach().mean(0) - real.mean(0)           # the gradient of every step
    assert torch.allclose(ahead.detach(), weight - 3 * 0.1 * difference)
    assert torch.equal(critic.weight.detach(), weight)
    value = loss.generator(fake @ ahead[:, None])               # -w_3 . mean(fake), and w_3 depends on the fakes too
    (slope,) = torch.autograd.grad(value, fake)
    expected = (-ahead.detach() + 3 * 0.1 * fake.detach().mean(0)) / 3
    assert torch.allclose(slope, expected.expand(3, 4))


def test_the_derivative_through_unrolled_steps_is_what_finite_differences_give():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()

    class Judge(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = critic

        def forward(self, images, labels):
            return self.inner(images)

    judge, loss, real = Judge(), adversarial("nonsaturating"), torch.randn(3, 4, dtype=torch.float64)

    def value(fake):
        ahead = unrolled(judge, real, fake, None, loss=loss, steps=2, rate=0.3)
        return loss.generator(torch.func.functional_call(judge, ahead, (fake, None)))

    assert torch.autograd.gradcheck(value, torch.randn(3, 4, dtype=torch.float64, requires_grad=True))


def test_unrolling_leaves_the_critic_as_it_was_and_no_step_changes_nothing(tiny):
    model = tiny("dcgan").train()
    before = {name: value.clone() for name, value in model.discriminator.state_dict().items()}
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    unrolled(model.discriminator, images, -images, None, loss=adversarial("hinge"), steps=2, rate=0.1)
    assert all(torch.equal(before[name], value) for name, value in model.discriminator.state_dict().items())
    model.eval()
    loss = GeneratorLoss(adversarial("hinge"))

    def term(each, noise):
        return float(each(model, Batch(images, None, noise)).total().detach())

    second = Noise(1)
    fakes(model, Batch(images, None, second))                   # what the steps would be taken with comes first
    assert term(Unrolled(loss, adversarial("hinge"), steps=0), Noise(1)) == term(loss, second)
    ahead = term(Unrolled(loss, adversarial("hinge"), steps=3, rate=0.1), Noise(1))
    assert ahead != term(Unrolled(loss, adversarial("hinge"), steps=0), Noise(1))


def test_the_generator_meets_a_critic_that_has_learnt(tiny):
    model = tiny("dcgan").eval()
    images = torch.rand(8, 3, 16, 16) * 2 - 1
    loss = adversarial("nonsaturating")
    fake = fakes(model, Batch(images, None, Noise(1))).detach()
    ahead = unrolled(model.discriminator, images, fake, None, loss=loss, steps=5, rate=0.02)

    def of(values):
        on_real, on_fake = (torch.func.functional_call(model.discriminator, values, (x, None)) for x in (images, fake))
        return float(loss.discriminator(on_real, on_fake).detach())

    assert of(ahead) < of({})
    now = DiscriminatorLoss(loss)(model, Batch(images, None, Noise(1))).total()
    assert float(now.detach()) == pytest.approx(of({}), rel=1e-5)
