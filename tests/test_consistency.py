"""Consistency regularisers against what they must be on critics and generators whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.consistency import Consistency, LatentConsistency, LatentVariety, disagreement, flip_and_shift
from zoo.judged import Judged
from zoo.noise import Noise
from zoo.recipe import Batch


class Line(nn.Module):
    """G(z) = a z as an image [N, 1, 2, 2] of one value each, D(x) = b sum(x)."""

    def __init__(self, a: float, b: float):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))
        self.generator = self.part(lambda z, labels: (self.a * z)[:, :, None, None].expand(-1, 1, 2, 2))
        self.discriminator = self.part(lambda images, labels: self.b * images.flatten(1).sum(1, keepdim=True))

    @staticmethod
    def part(forward):
        module = nn.Identity()
        module.forward = forward
        return module

    def latent(self, n, noise):
        return noise.normal(n, 1)


def make(model, batch):
    return model.generator(model.latent(len(batch), batch.noise), batch.labels)


def turn(model, images, *, moves=False):
    return Judged(model, Batch(images, None, Noise(2)), make, moves=moves)


def test_flip_and_shift_moves_whole_pixels_and_mirrors_half():
    images = torch.arange(8.0).expand(200, 1, 8, 8)
    moved = flip_and_shift(images, Noise(0))
    first = moved[:, 0, 0]
    seen = {tuple(row.tolist()) for row in first}
    straight = {tuple((torch.arange(8) + s).clamp(0, 7).float().tolist()) for s in (-1, 0, 1)}
    assert seen == straight | {row[::-1] for row in straight}
    assert 0.35 < float((first[:, 0] > first[:, -1]).float().mean()) < 0.65
    assert torch.equal(moved, flip_and_shift(images, Noise(0)))
    wanted = images.clone().requires_grad_(True)
    flip_and_shift(wanted, Noise(0)).sum().backward()           # every pixel shown passes one gradient on
    assert float(wanted.grad.sum()) == images.numel()


def test_shares_of_a_batch_are_changed_alike():
    images = torch.randn(6, 3, 8, 8)
    whole = flip_and_shift(images, Noise(3))
    assert torch.equal(flip_and_shift(images[1::2], Noise(3, share=1, shares=2)), whole[1::2])


def test_a_critic_that_sums_disagrees_by_what_a_change_adds():
    model, images = Line(1.0, 2.0), torch.randn(4, 1, 2, 2)

    def brighter(x, noise):
        return x + 0.25

    terms = Consistency(real=10, fake=5, change=brighter)(turn(model, images)).minimise
    assert float(terms["consistency"].detach()) == pytest.approx(10 * (2 * 4 * 0.25) ** 2, rel=1e-5)
    assert float(terms["consistency_fake"].detach()) == pytest.approx(5 * (2 * 4 * 0.25) ** 2, rel=1e-5)
    (slope,) = torch.autograd.grad(terms["consistency"], model.b)      # d 10 (b)^2 / db = 20 b
    assert float(slope) == pytest.approx(40, rel=1e-5)
    assert list(Consistency(fake=0)(turn(model, images)).minimise) == ["consistency"]


def test_no_change_is_no_disagreement():
    model, images = Line(1.0, 2.0), torch.randn(4, 1, 2, 2)
    for value in Consistency(change=lambda x, noise: x)(turn(model, images)).minimise.values():
        assert float(value.detach()) == 0
    assert float(disagreement(images, images)) == 0


def test_latent_halves_see_how_far_neighbours_lie_apart():
    model, images = Line(3.0, 2.0), torch.zeros(512, 1, 2, 2)
    noise = Noise(2)
    noise.normal(512, 1)
    moved = float((0.05 * noise.normal(512, 1)).square().mean())       # E[dz^2]
    critic = LatentConsistency()(turn(model, images)).minimise["latent_consistency"]
    assert float(critic.detach()) == pytest.approx(20 * (2 * 4 * 3) ** 2 * moved, rel=1e-4)
    assert torch.autograd.grad(critic, model.a, allow_unused=True)[0] is None      # the generator is not asked
    generator = LatentVariety()(turn(model, images, moves=True)).minimise["latent_variety"]
    assert float(generator.detach()) == pytest.approx(-0.5 * 9 * moved, rel=1e-4)
    (slope,) = torch.autograd.grad(generator, model.a)
    assert float(slope) == pytest.approx(-0.5 * 6 * moved, rel=1e-4)
