"""What a recipe is given from outside: parts of turns, wrapped losses, spectral norm and instance noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import zoo
from zoo.adversarial import DiscriminatorLoss, R1Loss, r1_loss, with_adversarial, without_penalties
from zoo.consistency import Consistency, LatentConsistency, LatentVariety
from zoo.diversity import Bures, FeatureMatching, ModeSeeking
from zoo.instance_noise import Noisy, noise_level
from zoo.judged import joined
from zoo.losses import adversarial
from zoo.noise import Noise
from zoo.parts import Both, PartLoss, Together, with_part, with_wrapped
from zoo.recipe import Batch, Phase, Recipe, Terms
from zoo.regularisers import GradientPenalty, LeCam, Orthogonal, follow_logits, remember_logits
from zoo.spectral import Spectral, normalise, normalised, spectral_norm, with_spectral_norm
from zoo.substitution import played_with
from zoo.unrolled import Unrolled
from zoo.weights import load, save

GANS = {
    "dcgan": {"latent": 8, "generator_width": 8, "discriminator_width": 8},
    "stylegan": {"latent": 16, "w": 16, "mapping_layers": 2, "channel_base": 128, "channel_max": 16},
    "biggan": {"width": 4},
    "r3gan": {"latent": 8, "channel_base": 512, "channel_max": 32, "blocks": 1},
}
JUDGES = [GradientPenalty(), GradientPenalty(at="around"), LeCam(), Consistency(), LatentConsistency()]
MAKERS = [ModeSeeking(), Bures(), FeatureMatching(), LatentVariety(), Orthogonal()]


def batch(n=4, seed=1, progress=0.0):
    torch.manual_seed(seed)
    return Batch(torch.rand(n, 3, 16, 16) * 2 - 1, None, Noise(seed), progress)


@pytest.mark.parametrize("name", sorted(GANS))
def test_every_built_in_gan_takes_every_part(name):
    torch.manual_seed(0)
    model = zoo.create(name, resolution=16, **GANS[name])
    remember_logits(model)
    plain = model.recipe()
    for trains, parts in (("discriminator", JUDGES), ("generator", MAKERS)):
        for part in parts:
            if name == "biggan" and isinstance(part, Orthogonal):
                continue                                        # its own turn has that term
            recipe = with_part(plain, part, trains=trains)
            before, after = (next(p for p in r.phases if p.trains == (trains,)) for r in (plain, recipe))
            model.requires_grad_(False)
            model.get_submodule(trains).requires_grad_(True)
            terms = after.loss(model, batch())
            more = set(terms.minimise) - set(before.loss(model, batch()).minimise)
            assert more, (name, part)
            torch.autograd.backward(sum(terms.minimise[each] for each in more))
            found = [each.grad for each in model.get_submodule(trains).parameters() if each.grad is not None]
            assert found
            assert all(bool(torch.isfinite(each).all()) for each in found)
            model.zero_grad()


def test_a_part_shares_the_turns_fakes_and_logits(tiny):
    model = tiny("dcgan").eval()
    remember_logits(model)
    calls = []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    DiscriminatorLoss(adversarial("hinge"), parts=(LeCam(),))(model, batch())
    assert calls == [4, 4]
    plain = DiscriminatorLoss(adversarial("hinge"))(model, batch())
    more = DiscriminatorLoss(adversarial("hinge"), parts=(GradientPenalty(),))(model, batch())
    assert torch.equal(plain.minimise["adversarial"], more.minimise["adversarial"])


def test_a_lazy_part_has_a_turn_of_its_own():
    phases = zoo.create("dcgan", resolution=16).recipe().phases
    recipe = with_part(Recipe(phases), GradientPenalty(), every=16)
    assert [(phase.name, phase.every) for phase in recipe.phases] == [
        ("discriminator", 1), ("gradient_penalty", 16), ("generator", 1),
    ]  # fmt: skip
    assert recipe.phases[1].loss == PartLoss((GradientPenalty(),))


def test_a_loss_that_takes_no_parts_is_played_beside_them(tiny):
    def own(model, given):
        return Terms({"own": torch.zeros(())})

    recipe = Recipe((Phase("own", ("generator",), own, after=lambda model, watched: None),))
    once = with_part(recipe, ModeSeeking(), trains="generator", after=follow_logits)
    twice = with_part(once, FeatureMatching(), trains="generator")
    loss = twice.phases[0].loss
    assert isinstance(loss, Together)
    assert loss.loss is own
    assert isinstance(twice.phases[0].after, Both)
    assert list(loss(tiny("dcgan"), batch()).minimise) == ["own", "mode_seeking", "feature_matching"]
    with pytest.raises(zoo.ZooError, match="No phase of this recipe trains a discriminator; they train: generator"):
        with_part(recipe, LeCam())


def test_terms_of_one_name_do_not_hide_each_other():
    one = Terms({"a": torch.ones(())})
    assert joined(one) is one
    with pytest.raises(zoo.ZooError, match="minimise a term 'a'"):
        joined(one, one)


def test_wrapped_losses_still_take_another_adversarial_loss():
    hinge = adversarial("hinge")
    wrapped = with_wrapped(
        Recipe((
            Phase("discriminator", ("discriminator",), DiscriminatorLoss(adversarial("wasserstein"), gamma=(1.0, 1.0))),
            Phase("r1", ("discriminator",), r1_loss(1.0), 16),
        )),
        lambda loss: Spectral(Noisy(loss)), trains=("discriminator",),
    )  # fmt: skip
    with_hinge = DiscriminatorLoss(hinge, gamma=(1.0, 1.0))
    assert with_adversarial(wrapped, hinge).phases[0].loss == Spectral(Noisy(with_hinge))
    (left,) = without_penalties(with_adversarial(wrapped, hinge)).phases
    assert left.loss == Spectral(Noisy(DiscriminatorLoss(hinge)))
    both = with_adversarial(Recipe((Phase("g", ("generator",), Unrolled(R1Loss(1.0), adversarial("minimax"))),)), hinge)
    assert both.phases[0].loss == Unrolled(R1Loss(1.0), hinge)


# Playing with other values.


def test_a_loss_is_played_with_other_values_and_nothing_stays(tiny):
    model = tiny("dcgan").eval()
    names = list(model.state_dict())
    bias = torch.tensor([5.0], requires_grad=True)

    def loss(given, unused):
        return Terms({"logit": given.discriminator(torch.zeros(1, 3, 16, 16), None).sum()})

    before = loss(model, batch()).total()
    term = played_with({"discriminator.head.bias": bias}, loss, model, batch()).total()
    assert float((term - before).detach()) == pytest.approx(5 - float(model.discriminator.head.bias.detach()), rel=1e-4)
    assert float(torch.autograd.grad(term, bias)[0]) == 1
    assert torch.equal(loss(model, batch()).total(), before)
    assert list(model.state_dict()) == names
    assert model.discriminator.head.bias is not bias


# Spectral norm.


def test_spectral_norm_is_the_largest_singular_value():
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(6, 10, dtype=torch.float64), full_matrices=False)
    values = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25, 0.1], dtype=torch.float64)
    weight = (u @ torch.diag(values) @ v).requires_grad_(True)
    norm = spectral_norm(weight, 30)
    assert float(norm.detach()) == pytest.approx(4, rel=1e-9)
    (slope,) = torch.autograd.grad(norm, weight)                # d sigma / dW = u v^T (eq. 10)
    assert torch.allclose(slope, torch.outer(u[:, 0], v[0]), atol=1e-6)
    assert torch.autograd.gradcheck(lambda w: normalised(w, 30), weight, atol=1e-4)
    kernel = torch.randn(8, 3, 3, 3)
    exact = float(torch.linalg.matrix_norm(kernel.flatten(1), 2))
    assert 0.97 * exact < float(spectral_norm(kernel)) <= exact * (1 + 1e-6)
    assert torch.equal(normalised(torch.zeros(3, 3)), torch.zeros(3, 3))


def test_spectral_norm_keeps_names_and_what_is_saved_is_what_was_judged_with(tiny, tmp_path):
    model = tiny("dcgan")
    model.eval()
    names = list(model.state_dict())
    recipe = with_spectral_norm(model.recipe())
    phase = recipe.phases[0]
    assert isinstance(phase.loss, Spectral)
    assert phase.project is normalise
    assert recipe.phases[1] == model.recipe().phases[1]
    given = batch()
    first = phase.loss(model, given).watch["logits_real"]
    phase.project(model.discriminator)
    assert list(model.state_dict()) == names
    assert torch.allclose(model.discriminator(given.images, None).mean(), first, atol=1e-6)
    for weight in model.discriminator.parameters():
        if weight.ndim > 1:
            assert float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.05)
    with torch.no_grad():                                       # only directions count
        model.discriminator.head.weight.mul_(7)
    assert torch.allclose(phase.loss(model, batch()).watch["logits_real"], first, atol=1e-5)
    phase.project(model.discriminator)
    again = load(save(model, tmp_path / "out")).eval()
    assert torch.equal(again.discriminator(given.images, None), model.discriminator(given.images, None))


def test_gradients_under_spectral_norm_have_no_part_along_the_weight(tiny):
    model = tiny("dcgan").eval()
    phase = with_spectral_norm(model.recipe()).phases[0]
    phase.loss(model, batch()).total().backward()
    head = model.discriminator.head.weight                      # a loss that scaling leaves as it is
    along = float((head.grad * head).sum().detach())
    assert abs(along) < 1e-5 * float(head.grad.norm() * head.detach().norm())
    assert head.grad.abs().sum() > 0


def test_spectral_norm_and_clipping_exclude_each_other():
    recipe = zoo.create("dcgan", resolution=16).recipe()
    clipped = replace(recipe, phases=(replace(recipe.phases[0], project=normalise), *recipe.phases[1:]))
    with pytest.raises(zoo.ZooError, match="'discriminator' projects its weights already"):
        with_spectral_norm(clipped)


# Instance noise.


def test_the_noise_level_falls_to_nothing():
    assert [noise_level(0.2, 0.5, progress) for progress in (0.0, 0.25, 0.5, 1.0)] == [0.2, 0.1, 0.0, 0.0]
    assert noise_level(0.2, 0.0, 0.0) == 0


def test_a_critic_sees_noise_until_it_is_gone():
    model = nn.Module()
    model.discriminator = Keeping()

    def loss(given, unused):
        return Terms({"mean": given.discriminator(torch.zeros(256, 1, 4, 4), None).mean()})

    for progress, level in ((0.0, 0.1), (0.5, 0.05)):
        Noisy(loss)(model, batch(progress=progress))
        assert float(model.discriminator.seen.std()) == pytest.approx(level, rel=0.05)
    first = model.discriminator.seen
    Noisy(loss)(model, batch(progress=0.5))
    assert torch.equal(model.discriminator.seen, first)         # of the batch's noise
    Noisy(loss)(model, batch(progress=1.0))
    assert float(model.discriminator.seen.abs().max()) == 0
    loss(model, None)
    assert not model.discriminator._forward_pre_hooks


class Keeping(nn.Module):
    def forward(self, images, labels):
        self.seen = images
        return images.flatten(1).sum(1, keepdim=True)


def test_penalties_are_taken_where_the_noise_is(tiny):
    model = tiny("dcgan").eval()
    loss = DiscriminatorLoss(adversarial("hinge"), gamma=(2.0, 2.0))
    quiet, noisy = (each(model, batch()).minimise for each in (Noisy(loss, first=0.0), Noisy(loss, first=0.5)))
    assert torch.equal(quiet["r1"], loss(model, batch()).minimise["r1"])
    assert not torch.equal(noisy["r1"], quiet["r1"])
    noisy["r1"].backward()
    assert model.discriminator.head.weight.grad.abs().sum() > 0
