"""A critic that sees how much the images of a group differ: the statistic, its derivatives, and trainings with it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from faults.undisturbed import differences
from test_diversity import GANS
from torch import nn
from torch.func import functional_call

import zoo
from zoo.additions.apply import added
from zoo.adversarial import R1Loss
from zoo.data import open_images
from zoo.minibatch_std import MinibatchStd, deviation, judge_groups
from zoo.noise import Noise
from zoo.packing import pack
from zoo.patches import judge_patches
from zoo.penalties import gradient_penalty
from zoo.projected import project
from zoo.recipe import Batch
from zoo.training.augmentation import Augmenter
from zoo.transfer.methods import METHODS
from zoo.weights import load, save

DCGAN = {"resolution": 16, "latent": 8, "generator_width": 8, "discriminator_width": 8}
LEAST = 1e-4      # what images that are all alike give


class Seen(nn.Module):
    """A critic that keeps what it is given."""

    def forward(self, images, labels=None):
        self.images, self.labels = images, labels
        return images.mean((2, 3))[:, :1]


@pytest.fixture(scope="module")
def images():
    return open_images("emoji:smileys-emotion", resolution=16, channels=3)


def pixels(n, *shape, **options):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(n), **options)


# The statistic.


def test_the_deviation_of_a_group_is_that_of_its_own_members():
    x = torch.tensor([1.0, 10.0, 3.0, 10.0, 5.0, 40.0])[:, None, None, None].double()
    found = deviation(x, 3)                                       # rows 0, 2, 4 and 1, 3, 5
    assert found.shape == (2, 1, 1, 1)
    assert found.flatten().tolist() == pytest.approx([(8 / 3) ** 0.5, 200**0.5])
    assert deviation(x, 2).flatten().tolist() == pytest.approx([4.5, 2.5, 18.5], abs=1e-6)      # with the row N/2 on


@pytest.mark.parametrize(("n", "group", "size"), [(8, 4, 4), (6, 4, 6), (2, 4, 2), (8, 3, 8), (5, None, 5)])
def test_each_pixel_and_channel_has_its_own_and_a_group_that_does_not_fit_is_the_batch(n, group, size):
    x = pixels(n, 3, 4, 5)
    found = deviation(x, group)
    assert found.shape == (n // size, 3, 4, 5)
    for row in range(n // size):
        members = x[row :: n // size]
        assert torch.allclose(found[row], members.std(0, correction=0), atol=1e-5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_not_half_as_exact(kind):
    x = (100 + pixels(4, 1, 8, 8)).to(kind)
    found = deviation(x, 4)
    assert found.dtype == torch.float32
    assert torch.allclose(found, x.double().std(0, correction=0, keepdim=True).float(), atol=1e-4)


def test_a_critic_is_given_the_images_and_then_their_deviations():
    critic = Seen()
    images, labels = pixels(8, 3, 4, 4), torch.eye(8)
    MinibatchStd(critic, 4)(images, labels)
    assert torch.equal(critic.images[:, :3], images)
    assert torch.equal(critic.images[:, 3:], deviation(images, 4)[[0, 1] * 4])
    assert critic.labels is labels
    MinibatchStd(critic, 4)(images.to(torch.bfloat16))
    assert critic.images.dtype == torch.bfloat16


@pytest.mark.parametrize("shares", [1, 2, 4])
def test_interleaved_shares_of_a_batch_see_what_the_whole_sees(shares):
    critic = Seen()
    judge = MinibatchStd(critic, 4)
    batch = pixels(16, 3, 4, 4)
    judge(batch)
    whole = critic.images
    for share in range(shares):
        judge(batch[share::shares])
        assert torch.equal(critic.images, whole[share::shares])


# Derivatives.


def test_derivatives_of_first_and_second_order_are_what_finite_differences_give():
    x = pixels(4, 2, 2, 2, dtype=torch.float64).requires_grad_(True)
    for group in (2, 4):
        assert torch.autograd.gradcheck(lambda rows, size=group: deviation(rows, size), x)
        assert torch.autograd.gradgradcheck(lambda rows, size=group: deviation(rows, size), x)


def test_the_gradient_of_r1_through_it_is_what_finite_differences_give():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1)).double()

    class Judge(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def forward(self, images, labels):
            return self.inner(images)

    critic = MinibatchStd(Judge(), 2)
    x = pixels(4, 2, 4, 4, dtype=torch.float64)

    def penalty(weights):
        return gradient_penalty(lambda rows, labels: functional_call(critic, weights, (rows, labels)), x, None)

    weights = dict(critic.named_parameters())
    slopes = torch.autograd.grad(penalty(weights), list(weights.values()), allow_unused=True)
    for (name, weight), slope in zip(weights.items(), slopes):
        direction = pixels(*weight.shape, dtype=torch.float64)
        step = 1e-3                                                # the penalty itself is of single precision
        ahead, behind = (
            float(penalty({**weights, name: weight.detach() + sign * step * direction}).detach()) for sign in (1, -1)
        )
        found = 0.0 if slope is None else float((slope * direction).sum())      # a bias of the head moves no slope
        assert found == pytest.approx((ahead - behind) / (2 * step), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("n", [1, 4, 8])
def test_images_that_are_all_alike_give_no_deviation_and_finite_derivatives(n):
    one = pixels(1, 3, 4, 4).expand(n, -1, -1, -1).clone().requires_grad_(True)
    found = deviation(one, 4)
    assert torch.allclose(found, torch.full_like(found, LEAST))
    (slope,) = torch.autograd.grad(found.sum(), one, create_graph=True)
    assert torch.equal(slope, torch.zeros_like(slope))
    (bend,) = torch.autograd.grad((slope * pixels(n, 3, 4, 4)).sum(), one)
    assert bend.isfinite().all()
    model = judge_groups(zoo.create("dcgan", **DCGAN, discriminator_norm=False))
    batch = Batch(pixels(1, 3, 16, 16).expand(n, -1, -1, -1), None, Noise(1))
    R1Loss(1.0)(model, batch).total().backward()
    assert all(p.grad.isfinite().all() for p in model.discriminator.parameters() if p.grad is not None)


# As a critic of any GAN.


@pytest.mark.parametrize("name", sorted(GANS))
def test_every_built_in_gan_plays_with_it(name):
    torch.manual_seed(0)
    model = zoo.create(name, resolution=16, num_classes=2, **GANS[name])
    own = sum(p.numel() for p in model.discriminator.parameters())
    assert judge_groups(model, 2) is model
    assert model.fresh == ("discriminator",)
    assert 1 < sum(p.numel() for p in model.discriminator.parameters()) / own < 1.2
    batch = Batch(torch.rand(4, 3, 16, 16) * 2 - 1, torch.eye(2).repeat(2, 1), Noise(1))
    assert model.discriminator(batch.images, batch.labels).shape == (4, 1)
    recipe = added(model, model.recipe(), ["gradient_penalty", "lecam", "bures"])
    for phase in recipe.phases:
        assert torch.isfinite(phase.loss(model, batch).total())
    assert model.logits(batch.images[:1], [0]).isfinite().all()      # one alone


def test_it_tells_a_generator_that_makes_one_image_of_all_latents():
    """Reals are black or white as fakes are, but the fakes of a batch are all the same: each alone says nothing."""

    def told(grouped):
        torch.manual_seed(0)
        model = zoo.create("dcgan", **DCGAN, discriminator_norm=False)
        critic = (judge_groups(model, 4) if grouped else model).discriminator
        optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
        correct = []
        for _ in range(60):
            real = (torch.randint(2, (8, 1, 1, 1)) * 2.0 - 1).expand(8, 3, 16, 16)
            fake = (torch.randint(2, (1, 1, 1, 1)) * 2.0 - 1).expand(8, 3, 16, 16)
            on_real, on_fake = critic(real), critic(fake)
            optimizer.zero_grad()
            (nn.functional.softplus(-on_real) + nn.functional.softplus(on_fake)).mean().backward()
            optimizer.step()
            correct.append(float(((on_real > 0).float().mean() + (on_fake < 0).float().mean()) / 2))
        return sum(correct[-20:]) / 20

    assert told(grouped=True) > 0.85
    assert told(grouped=False) < 0.65


@pytest.mark.parametrize("augment", [("ada",), ("translation", "cutout", "color")])
def test_it_compares_images_as_augmentation_has_changed_them(augment):
    model = judge_groups(zoo.create("dcgan", **DCGAN)).train()
    model.discriminator.critic = Seen()
    augmenter = Augmenter(replace(model.recipe(), augment=augment, ada_p=1.0), model)
    given = pixels(8, 3, 16, 16).clamp(-1, 1).requires_grad_(True)
    augmenter.draw(Noise(3))
    with augmenter.attached():
        model.discriminator(given).sum().backward()
    seen = model.discriminator.critic.images.detach()
    assert not torch.equal(seen[:, :3], given.detach())
    assert torch.equal(seen[:, 3:], deviation(seen[:, :3], 4).repeat(4, 1, 1, 1))
    assert given.grad.isfinite().all()


@pytest.mark.parametrize("change", [lambda model: judge_groups(model, 4), lambda model: pack(model, 2)])
def test_freeze_d_holds_the_half_next_to_the_image_of_what_is_inside(change, tiny):
    model = change(tiny("dcgan", resolution=32))
    model.fresh = ()      # as when it was trained and loaded
    recipe = METHODS["freeze_d"].apply(model, model.recipe())
    inside = "discriminator.critic"
    assert recipe.phases[0].frozen == (f"{inside}.from_image.*", f"{inside}.blocks.0.*")


# Trainings.


def trained(images, out, *, steps=20, model=None, **options):
    torch.manual_seed(0)
    model = model or zoo.create("dcgan", **DCGAN)
    return zoo.train(model, images, kimg=steps * 0.008, out=out, batch=8, tick_kimg=0.04, **options)


def test_a_model_with_it_is_saved_loaded_and_trained_on(images, tmp_path):
    run = trained(images, tmp_path / "run", add=["minibatch_std:group=2"])
    assert run.settings["recipe"]["added"] == ["minibatch_std:group=2"]
    config = json.loads((run.directory / "model" / "config.json").read_text())
    assert config["critic"] == {"kind": "minibatch_std", "group": 2}
    model = load(run.directory / "model")
    faces = torch.rand(8, 3, 16, 16) * 2 - 1
    assert model.logits(faces).shape == (8, 1)
    assert torch.equal(model.logits(faces), run.model.logits(faces))
    assert not torch.equal(model.logits(faces)[:1], model.logits(faces[:1]))      # alone, it looks like all others
    classes = load(run.directory / "model", adapt=True, num_classes=3)
    first = [each.discriminator.critic.from_image.weight for each in (classes, model)]
    assert torch.equal(first[0][:, :6], first[1])      # what it knows of images and deviations is kept
    more = trained(images, tmp_path / "more", model=model)
    assert more.settings["critic"] == {"kind": "minibatch_std", "group": 2}


def test_a_training_with_it_goes_on_to_the_bit(images, tmp_path):
    options = {"add": ["minibatch_std", "r1:every=4"], "resume": True, "checkpoint_kimg": 0.056, "sample_kimg": 1.0,
               "settings": {"augment": "ada"}}  # fmt: skip

    def broken_off(kimg, total, values):
        if kimg > 0.1:
            raise KeyboardInterrupt

    def train(name, progress=None):
        trained(images, tmp_path / name, progress=progress, **options)

    train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("parts", broken_off)
    train("parts")
    assert differences(tmp_path / "parts", tmp_path / "whole") == []


def test_micro_batches_hold_whole_groups(images, tmp_path):
    def weights(group, accumulate):
        torch.manual_seed(0)
        model = zoo.create("r3gan", resolution=16, **GANS["r3gan"])
        out = tmp_path / f"{group}-{accumulate}"
        run = trained(images, out, steps=3, model=model, add=[f"minibatch_std:group={group}"], accumulate=accumulate)
        return torch.cat([p.detach().flatten() for p in run.model.discriminator.parameters()])

    whole = weights(4, 1)
    assert torch.allclose(weights(4, 2), whole, atol=2e-5)
    assert not torch.allclose(weights(8, 2), weights(8, 1), atol=2e-4)      # groups that micro-batches cut


def test_a_fine_tune_warms_its_fresh_critic_up(images, tmp_path):
    model = zoo.create("dcgan", **DCGAN)
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    run = zoo.finetune(model, images, kimg=0.08, out=tmp_path / "run", batch=8, add=["minibatch_std"],
                       settings={"warmup_kimg": 0.08})  # fmt: skip
    assert run.settings["fresh"] == ["discriminator"]
    assert run.settings["method"] == "full"
    assert all(torch.equal(value, before[name]) for name, value in run.model.generator.state_dict().items())
    with pytest.raises(zoo.ZooError, match="this one is fresh"):
        zoo.finetune(zoo.create("dcgan", **DCGAN), images, kimg=0.08, out=tmp_path / "other", batch=8,
                     add=["minibatch_std"], method="freeze_d")  # fmt: skip


# What does not go together.


def refused(call, said):
    with pytest.raises(zoo.ZooError, match=re.escape(said)) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("critic", "kind"),
    [
        (lambda model: pack(model, 2), "'packed'"),
        (judge_groups, "'minibatch_std'"),
        (lambda model: judge_patches(model, width=8), "'patch'"),
        (lambda model: project(model, resolution=32, channels=8, pretrained=False), "'projected'"),
    ],
)
def test_one_critic_at_a_time(critic, kind, tiny):
    model = critic(tiny("dcgan"))
    for text in ("minibatch_std", "pacgan"):
        refused(lambda add=text: added(model, model.recipe(), [add]),
                f"a critic of the kind {kind}, and no discriminator of its own")  # fmt: skip


@pytest.mark.parametrize("add", [["pacgan", "minibatch_std"], ["minibatch_std", "pacgan"]])
def test_packs_and_groups_are_not_added_together(add, tiny):
    model = tiny("dcgan")
    refused(lambda: added(model, model.recipe(), add), "keep one of the two")


def test_what_does_not_fit_is_one_line(tiny, tmp_path):
    model = tiny("dcgan")
    recipe = model.recipe()
    refused(lambda: added(model, recipe, ["minibatch_std:group=1"]), "minibatch_std: group=1")
    refused(lambda: added(model, recipe, ["minibatch_std:group=9999"]), "minibatch_std: group=9999")
    refused(lambda: added(model, replace(recipe, batch=1), ["minibatch_std"]), "give a larger --batch")
    refused(lambda: judge_groups(model, 1), "a group holds at least 2 images")
    vae = zoo.create("vae", resolution=16, width=4, widest=8, latent=4, prior_width=8)
    refused(lambda: added(vae, vae.recipe(), ["minibatch_std"]), "vae has no discriminator")
    for wrong in ({"group": 1}, {"group": 1e9}, {"group": "4"}, {"script": "run me"}):
        folder = save(judge_groups(tiny("dcgan")), tmp_path / "model")
        written = json.loads((folder / "config.json").read_text())
        written["critic"] |= wrong
        (folder / "config.json").write_text(json.dumps(written))
        refused(lambda: load(tmp_path / "model", verify=False), f"critic: {next(iter(wrong))}")
