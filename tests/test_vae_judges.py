"""What judges an autoencoder beside its error: a perceptual distance, and a critic of patches with its weight."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from faults.breaking_off import broken_off
from faults.kinds import emoji
from processes import together

import zoo
from zoo.additions.apply import added
from zoo.critics import attach
from zoo.data import normalise
from zoo.noise import Noise
from zoo.patches import PatchDiscriminator, deepest
from zoo.perceptual import Perceptual
from zoo.recipe import Batch
from zoo_vae.loss import PerceptualPart, adaptive_weight

KINDS = {
    "main": {"width": 4, "widest": 8, "latent": 4, "prior_width": 8, "prior_steps": 2},
    "kl": {"variant": "kl", "widths": (8, 8), "depth": 1, "norm_groups": 4},
    "tiny": {"variant": "tiny", "encoder_width": 8, "decoder_width": 8, "encoder_blocks": (1, 1),
             "decoder_blocks": (1, 1)},
}  # fmt: skip
CRITIC = "patch_critic:width=4,start=0.5"
kinds = pytest.mark.parametrize("kind", KINDS)


def build(kind: str = "main", **settings) -> zoo.Model:
    torch.manual_seed(0)
    return zoo.create("vae", **{"resolution": 16, **KINDS[kind], **settings})


def batch_for(model: zoo.Model, progress: float = 1.0, n: int = 4) -> Batch:
    images = torch.rand(n, model.config.channels, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(images, None, Noise(0), progress)


# The perceptual distance.


def random_network() -> Perceptual:
    torch.manual_seed(0)
    return Perceptual("test_resnet", size=32, pretrained=False)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_equal_images_are_at_no_distance(channels):
    distance = random_network()
    one, other = (torch.rand(2, channels, 16, 16) * 2 - 1 for _ in range(2))
    assert distance(one, one).tolist() == [0, 0]
    apart = distance(one, other)
    assert apart.shape == (2,)
    assert bool(((apart > 0) & (apart < 4)).all())
    torch.testing.assert_close(distance(other, one), apart)


def test_its_gradient_is_that_of_finite_differences():
    distance = random_network().double()
    one, other, direction = (torch.randn(1, 3, 16, 16, dtype=torch.float64) for _ in range(3))
    one.requires_grad_()
    (gradient,) = torch.autograd.grad(distance(one, other).sum(), one)
    step = 1e-6
    ahead, behind = (distance(one + sign * step * direction, other).item() for sign in (1, -1))
    assert (gradient * direction).sum().item() == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)


def test_nothing_in_it_learns():
    distance = random_network().train()
    assert list(distance.parameters()) == []
    assert not any(module.training for module in distance.modules())


def test_a_picture_is_nearer_to_its_blurred_self_than_to_another():
    distance = Perceptual()
    images = normalise(emoji(32).read(range(0, 800, 100)))
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    near, far = distance(blurred, images), distance(images.roll(1, 0), images)
    assert near.mean() < 0.7 * far.mean()


def test_its_term_weighs_as_much_as_the_error():
    """As |x - y| + weight d, both divided by the likelihood's scale: VQGAN's sum, in nats."""
    model = build()
    model.decoder.scale.fill_(0.25)
    (phase,) = model.recipe().phases
    plain = phase.loss(model, batch_for(model))
    loss = replace(phase.loss, parts=(PerceptualPart(random_network(), 0.5),))
    terms = loss(model, batch_for(model))
    assert terms.minimise["perceptual"].item() == pytest.approx(0.5 * terms.watch["distance"].item() / 0.25)
    assert terms.minimise["reconstruction"] == plain.minimise["reconstruction"]
    assert terms.watch["distance"] > 0


# The critic of patches.


def test_a_logit_sees_70_pixels():
    critic = PatchDiscriminator(3, 4, 3).eval()
    images = torch.randn(1, 3, 256, 256, requires_grad=True)
    logits = critic(images)
    assert logits.shape == (1, 30 * 30)
    (gradient,) = torch.autograd.grad(logits[0, 15 * 30 + 15], images)
    rows, columns = (gradient.abs().sum((0, 1, axis)).nonzero() for axis in (3, 2))
    assert [int(each.max() - each.min()) + 1 for each in (rows, columns)] == [70, 70]


@pytest.mark.parametrize("resolution", [6, 8, 12, 16, 24, 32, 47, 48, 64])
def test_the_deepest_critic_still_judges_and_a_deeper_one_cannot(resolution):
    images, layers = torch.zeros(2, 3, resolution, resolution), deepest(resolution)
    assert PatchDiscriminator(3, 1, layers)(images).shape[1] >= 1
    with pytest.raises(RuntimeError):
        PatchDiscriminator(3, 1, layers + 1)(images)


def test_any_model_can_have_one_and_keeps_it(tmp_path):
    torch.manual_seed(0)
    model = attach(zoo.create("dcgan", resolution=16, generator_width=4, discriminator_width=4),
                   {"kind": "patch", "width": 4, "layers": 2})  # fmt: skip
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    loaded = zoo.load(f"dir:{zoo.save(model, tmp_path / 'model')}")
    assert torch.equal(loaded.logits(images), model.logits(images))
    for config, message in (({"layers": 3}, "images of 16 pixels have room for 2 halvings"),
                            ({"width": 0}, "width=.*greater than"), ({"depth": 1}, "depth")):  # fmt: skip
        with pytest.raises(zoo.ZooError, match=message):
            attach(model, {"kind": "patch", **config})


# How strong it is.


def test_the_adaptive_weight_is_the_ratio_of_gradient_norms():
    layer = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    errors, logits = (layer * 3).sum(), (layer * torch.tensor([0.0, 1, 0, 0])).sum()
    assert adaptive_weight(errors, logits, layer).item() == pytest.approx((9 * 12) ** 0.5 / (3**0.5 + 1e-4))
    assert adaptive_weight(errors, logits * 0, layer) == 1e4
    assert adaptive_weight(errors * 0, logits, layer) == 0


@kinds
def test_the_critic_is_as_strong_as_the_rest_at_the_last_layer(kind):
    model = build(kind)
    recipe = added(model, model.recipe(), ["perceptual:size=32", "patch_critic:width=4,start=0.5,weight=0.8"])
    generator, critic = recipe.phases
    terms = generator.loss(model, batch_for(model))
    layer = model.decoder.to_image.weight
    strength = {name: torch.autograd.grad(term, layer, retain_graph=True, allow_unused=True)[0]
                for name, term in terms.minimise.items()}  # fmt: skip
    rest = strength["reconstruction"] + strength["perceptual"]      # of the divergence nothing comes here
    assert strength.get("divergence") is None
    adversarial = strength["adversarial"].norm() / terms.watch["adaptive_weight"]
    expected = 0.8 * rest.norm() / (adversarial + 1e-4)
    assert terms.watch["adaptive_weight"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert terms.watch["distance"] > 0
    assert critic.trains == ("discriminator",)
    assert recipe.critics == ("discriminator",)


def test_before_its_start_the_critic_neither_counts_nor_learns():
    model = build()
    generator, critic = added(model, model.recipe(), [CRITIC]).phases
    early, late = (generator.loss(model, batch_for(model, progress)) for progress in (0.49, 0.5))
    assert early.minimise["adversarial"] == early.watch["adaptive_weight"] == 0
    assert late.minimise["adversarial"] != 0
    assert early.minimise.keys() == late.minimise.keys()
    assert early.watch.keys() == late.watch.keys()
    early, late = (critic.loss(model, batch_for(model, progress)) for progress in (0.49, 0.5))
    assert (early.total() == 0, late.total() > 0) == (True, True)
    assert early.watch.keys() == late.watch.keys()


def test_the_order_of_additions_does_not_matter():
    losses = []
    for order in ((CRITIC, "perceptual:size=32"), ("perceptual:size=32", CRITIC)):
        model = build()
        recipe = added(model, model.recipe(), order)
        losses.append(recipe.phases[0].loss(model, batch_for(model)).total().item())
    assert losses[0] == losses[1]


def test_another_adversarial_loss_and_parts_for_the_critic_fit(tmp_path):
    run = zoo.train(build(), emoji(16), kimg=0.008, batch=4, out=tmp_path / "run",
                    add=[f"{CRITIC},loss=nonsaturating", "r1:gamma=0.1", "lecam"])  # fmt: skip
    assert {"discriminator.r1", "discriminator.lecam", "autoencoder.adversarial"} <= set(run.log[-1]["terms"])


@pytest.mark.parametrize("name", ["perceptual", "patch_critic"])
def test_a_gan_has_nothing_that_they_could_judge(name, tiny):
    model = tiny("dcgan")
    with pytest.raises(zoo.ZooError, match=f"^{name} judges the reconstructions of the architecture vae; dcgan has"):
        added(model, model.recipe(), [name])


# Trainings.


@kinds
def test_judges_are_not_published(kind, tmp_path):
    run = zoo.train(build(kind), emoji(16), kimg=0.032, batch=4, out=tmp_path / "run", add=[CRITIC])
    assert "critic" not in json.loads((run.directory / "model" / "config.json").read_text())
    published = zoo.load(f"dir:{run.directory / 'model'}")
    assert set(published.networks()) == set(build(kind).networks())
    assert run.settings["recipe"]["added"] == ["patch_critic:weight=0.5,start=0.5,loss=hinge,width=4,layers=none"]


def test_the_critic_stands_still_until_its_start(tmp_path):
    model = build()
    recipe = added(model, model.recipe(), [CRITIC])
    before = {name: value.clone() for name, value in model.discriminator.named_parameters()}
    moved = []

    def look(done: float, total: float, values: object) -> None:
        moved.append(any(not torch.equal(value, before[name]) for name, value in
                         model.discriminator.named_parameters()))  # fmt: skip

    zoo.train(model, emoji(16), kimg=0.032, batch=4, out=tmp_path / "run", recipe=recipe, tick_kimg=0.004,
              progress=look)  # fmt: skip
    assert moved[:4] == [False] * 4
    assert moved[4:] == [True] * len(moved[4:])


@pytest.mark.parametrize("kind", ["main", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("kl", "tiny"))])
def test_a_training_with_a_critic_that_broke_off_goes_on_as_if_it_had_not(kind, tmp_path):
    assert broken_off(tmp_path, lambda: build(kind), add=[CRITIC]) == []


@pytest.mark.slow
def test_a_training_with_all_judges_that_broke_off_goes_on_as_if_it_had_not(tmp_path):
    assert broken_off(tmp_path, build, add=["perceptual:size=32", CRITIC]) == []


def in_two(out) -> bytes:
    model = build("tiny")
    zoo.train(model, emoji(16), kimg=0.032, batch=4, out=out, add=["patch_critic:width=4,start=0"])
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


@pytest.mark.slow
def test_two_processes_with_a_critic_end_with_the_same_weights(tmp_path):
    one, other = together(in_two, 2, tmp_path / "two")
    assert one == other


@pytest.mark.slow
@kinds
def test_training_with_judges_brings_images_nearer(kind, tmp_path):
    run = zoo.train(build(kind), emoji(16), kimg=3.2, batch=16, tick_kimg=0.32, out=tmp_path / "run",
                    settings={"lr": 1e-3}, add=["perceptual:size=32", "patch_critic:width=8"])  # fmt: skip
    first, last = run.log[0]["terms"], run.log[-1]["terms"]
    assert last["autoencoder.distance"] < 0.9 * first["autoencoder.distance"]
    assert last["autoencoder.mse"] < 0.75 * first["autoencoder.mse"]
    assert last["discriminator.logits_real"] > last["discriminator.logits_fake"]
