"""Losses and penalties against numbers worked out by hand."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import nn

import zoo
from zoo.adversarial import (
    DiscriminatorLoss,
    adversarial_phases,
    deceives,
    fakes,
    generator_loss,
    r1_loss,
    r2_loss,
    with_adversarial,
    without_penalties,
)
from zoo.losses import ADVERSARIAL, adversarial, best, top_k
from zoo.noise import Noise
from zoo.penalties import clip_weights, gradient_penalty, orthogonality, path_lengths, squared_gradient
from zoo.recipe import Batch, Phase, Recipe, Terms

REAL, FAKE = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [-3.0]])


def sigmoid(value: float) -> float:
    return 1 / (1 + 2.718281828459045**-value)


def both(real: float, fake: float) -> float:
    """A row of relativistic average: logits of the other kind have the means 0.5 and -1.25."""
    return -log(sigmoid(real + 1.25)) - log(1 - sigmoid(fake - 0.5))


NONSATURATING = -(log(sigmoid(2)) + log(sigmoid(-1))) / 2 - (log(1 - sigmoid(0.5)) + log(1 - sigmoid(-3))) / 2


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("nonsaturating", NONSATURATING, -(log(sigmoid(0.5)) + log(sigmoid(-3))) / 2),
        ("minimax", NONSATURATING, (log(1 - sigmoid(0.5)) + log(1 - sigmoid(-3))) / 2),
        ("hinge", (0 + 2) / 2 + (1.5 + 0) / 2, 1.25),
        ("least_squares", 0.5 * ((1 + 4) / 2 + (0.25 + 9) / 2), 0.5 * (0.25 + 16) / 2),
        ("wasserstein", -1.25 - 0.5, 1.25),
        ("relativistic", -(log(sigmoid(1.5)) + log(sigmoid(2))) / 2, -(log(sigmoid(0.5)) + log(sigmoid(-3))) / 2),
        ("relativistic_average", (both(2, 0.5) + both(-1, -3)) / 2, -(log(sigmoid(0.5)) + log(sigmoid(-3))) / 2),
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


def test_relativistic_pairing_judges_each_fake_against_its_own_real():
    loss = adversarial("relativistic")
    assert loss.paired
    assert float(loss.discriminator(REAL, FAKE)) != pytest.approx(float(loss.discriminator(REAL.flip(0), FAKE)))
    assert float(loss.discriminator(REAL + 7, FAKE + 7)) == pytest.approx(float(loss.discriminator(REAL, FAKE)))
    # The game is symmetric: the generator minimises what the discriminator does, with reals and fakes exchanged.
    assert torch.equal(loss.generator(FAKE - REAL), loss.discriminator(FAKE, REAL))


def test_the_saturating_generators_gradient_vanishes_where_the_discriminator_is_sure():
    fake = torch.tensor([[-20.0]], requires_grad=True)
    slopes = {name: torch.autograd.grad(adversarial(name).generator(fake), fake)[0] for name in
              ("minimax", "nonsaturating")}  # fmt: skip
    assert abs(float(slopes["minimax"])) < 1e-8
    assert float(slopes["nonsaturating"]) == pytest.approx(-1)


def judging(logits):
    """A model whose discriminator gives an image the logit that its pixels are filled with."""
    model = nn.Module()
    model.discriminator = nn.Identity()
    model.discriminator.forward = lambda images, labels: images.flatten(1)[:, :1]
    return model, logits[:, :, None, None].expand(-1, 1, 2, 2)


def test_the_average_relativistic_generator_exchanges_reals_and_fakes():
    loss = adversarial("relativistic_average")
    model, fake = judging(FAKE)
    batch = Batch(judging(REAL)[1], None, Noise(1))
    assert torch.equal(deceives(loss, model, fake, batch), loss.discriminator(FAKE, REAL))


def test_the_best_fakes_are_those_with_the_highest_logits():
    logits = torch.tensor([[1.0], [4.0], [2.0], [3.0]])
    assert best(logits, 0.5).flatten().tolist() == [4.0, 3.0]
    assert best(logits, 0.01).flatten().tolist() == [4.0]
    assert best(torch.tensor([[5.0, -9.0], [0.0, 0.0]]), 0.5).tolist() == [[0.0, 0.0]]      # by the mean of the heads


def test_top_k_narrows_as_training_goes():
    loss = top_k(adversarial("hinge"), 0.25)
    model, fake = judging(torch.tensor([[1.0], [4.0], [2.0], [3.0]]))
    at = [float(deceives(loss, model, fake, Batch(fake, None, Noise(1), progress))) for progress in (0.0, 0.5, 1.0)]
    assert at == [-2.5, -3.5, -4.0]                             # the means of all, of two, of one
    assert loss.name == "hinge:kept=0.25"
    with pytest.raises(zoo.ZooError, match=r"kept=0: give the share"):
        top_k(adversarial("hinge"), 0)


def test_several_logits_for_an_image_count_as_so_many_more():
    for loss in ADVERSARIAL.values():
        rows, flat = (REAL.view(1, 2), FAKE.view(1, 2)), (REAL, FAKE)
        assert torch.equal(loss.discriminator(*rows), loss.discriminator(*flat))
        assert torch.equal(loss.generator(rows[1]), loss.generator(flat[1]))


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


def test_squared_gradient_is_what_finite_differences_give():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    images, step, total = torch.randn(3, 3, 2, 2, dtype=torch.float64), 1e-6, 0.0
    for pixel in torch.eye(12, dtype=torch.float64).view(12, 3, 2, 2):
        with torch.no_grad():
            slopes = (critic(images + step * pixel) - critic(images - step * pixel)) / (2 * step)
        total += float(slopes.square().sum()) / len(images)
    images.requires_grad_(True)
    assert float(squared_gradient(critic(images), images).detach()) == pytest.approx(total, rel=1e-5)
    assert float(gradient_penalty(lambda x, labels: critic(x), images, None).detach()) == pytest.approx(total, rel=1e-5)


@pytest.fixture
def small(tiny):
    """A tiny conditional model, and a batch of images for it."""
    model = tiny("dcgan", num_classes=2).eval()      # batch statistics stand still, so that passes can be compared
    labels = torch.eye(2).repeat(2, 1)
    return model, lambda progress=0.0: Batch(torch.rand(4, 3, 16, 16) * 2 - 1, labels, Noise(1), progress)


def test_the_discriminators_turn_may_hold_r1_and_r2(small):
    model, batch = small
    torch.manual_seed(0)
    given = batch(0.5)
    terms = DiscriminatorLoss(adversarial("relativistic"), gamma=(3.0, 1.0))(model, given).minimise
    assert list(terms) == ["adversarial", "r1", "r2"]
    assert not given.images.requires_grad
    fake = fakes(model, Batch(given.images, given.labels, Noise(1))).detach()
    for name, images in (("r1", given.images), ("r2", fake)):
        penalty = gradient_penalty(model.discriminator, images, given.labels)
        assert float(terms[name].detach()) == pytest.approx(0.5 * 2.0 * float(penalty.detach()), rel=1e-5)
    for lazy, name in ((r1_loss(2.0), "r1"), (r2_loss(2.0), "r2")):
        again = lazy(model, Batch(given.images, given.labels, Noise(1))).minimise[name]
        assert float(again.detach()) == pytest.approx(float(terms[name].detach()), rel=1e-5)


def test_the_relativistic_generator_sees_the_reals_of_its_batch(small):
    model, batch = small
    torch.manual_seed(0)
    given = batch()
    term = generator_loss(adversarial("relativistic"))(model, given).minimise["adversarial"]
    fake = fakes(model, Batch(given.images, given.labels, Noise(1)))
    on_fake, on_real = (model.discriminator(images, given.labels) for images in (fake, given.images))
    term.backward()
    assert float(term.detach()) == pytest.approx(float(nn.functional.softplus(on_real - on_fake).detach().mean()))
    assert model.generator.head.weight.grad.abs().sum() > 0


def test_any_recipe_takes_another_loss_and_loses_its_penalties():
    def own(model, batch):
        return Terms({"own": torch.zeros(())})

    phases = (
        *adversarial_phases(adversarial("relativistic"), gamma=(2.0, 0.2)),
        Phase("r1", ("discriminator",), r1_loss(1.0), every=16),
        Phase("own", ("generator",), own),
    )
    recipe = without_penalties(with_adversarial(Recipe(phases), adversarial("hinge")))
    assert [phase.name for phase in recipe.phases] == ["discriminator", "generator", "own"]
    assert phases[0].settings == {"loss": "relativistic", "gamma": 2.0, "final_gamma": 0.2}
    assert [dict(phase.settings) for phase in recipe.phases] == [{"loss": "hinge"}, {"loss": "hinge"}, {}]
    assert recipe.phases[0].loss == DiscriminatorLoss(adversarial("hinge"))
    assert recipe.phases[2].loss is own


@pytest.mark.parametrize("name", ["dcgan", "stylegan", "biggan"])
def test_every_built_in_gan_takes_every_loss(name):
    model = zoo.create(name, resolution=16, **({"width": 4} if name == "biggan" else {}))
    for loss in ADVERSARIAL.values():
        recipe = with_adversarial(model.recipe(), loss)
        assert [phase.settings["loss"] for phase in recipe.phases if phase.name in ("discriminator", "generator")] == [
            loss.name, loss.name,
        ]  # fmt: skip
        without = [phase.name for phase in without_penalties(recipe).phases]
        assert without == [phase.name for phase in recipe.phases if phase.name != "r1"]


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
