"""What stands between images and critics: who sees changed images, how p moves, and that a resume goes on exactly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import zoo
from zoo.adversarial import DiscriminatorLoss, adversarial_phases
from zoo.losses import adversarial
from zoo.noise import Noise
from zoo.penalties import gradient_penalty
from zoo.recipe import Batch, Terms
from zoo.training import settled
from zoo.training.augmentation import Augmenter, check
from zoo.training.augmentation.ada import SETS, ada


@pytest.fixture
def model(tiny):
    return tiny("stylegan").train()


def augmenter(model, augment: tuple[str, ...] = ("ada",), **changes) -> Augmenter:
    return Augmenter(replace(model.recipe(), augment=augment, **changes), model)


def steps(which: Augmenter, sign: float, count: int, images: int = 8) -> Augmenter:
    for _ in range(count):
        which.hear({"logits_real": 3.0, "sign_real": sign})
        which.hear({"path_length": 1.0})
        which.adapt(images)
    return which


def pictures(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


# What is asked for.


@pytest.mark.parametrize("parts", [(), ("ada",), ("ada:b",), ("ada:bgcfnc",), ("color", "translation", "cutout")])
def test_what_there_is_passes(parts):
    check(parts)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (("ada:bcg",), "'ada:bcg'.*Did you mean 'ada:b"),
        (("ADA",), "'ADA'.*Possible: color, translation, cutout, ada, ada:b,"),
        (("ada", "color"), "ada goes alone"),
        (("ada:b", "ada:bg"), "ada:b goes alone"),
    ],
)
def test_what_there_is_not_is_refused(parts, said):
    with pytest.raises(zoo.ZooError, match=said):
        check(parts)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ada_target": None}, "no image would ever change"),
        ({"ada_ramp_kimg": 1.0}, "ada_ramp_kimg=1 is for a p that is not steered"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(model, changes, said):
    with pytest.raises(zoo.ZooError, match=said):
        augmenter(model, **changes)
    assert augmenter(model, (), **changes).state() == {}      # they count for ADA alone


def test_a_recipe_without_critics_has_nothing_to_augment(model):
    with pytest.raises(zoo.ZooError, match="augment=color: this recipe has no critic"):
        augmenter(model, ("color",), critics=())


@pytest.mark.parametrize("setting", ["ada_target=1.5", "ada_kimg=0", "ada_p=-0.1", "ada_p=nan", "ada_ramp_kimg=-1"])
def test_settings_have_their_range(model, setting):
    name, value = setting.split("=")
    with pytest.raises(zoo.ZooError, match=name):
        settled(model.recipe(), {name: float(value)})


# Who sees what.


def test_critics_see_changed_images_while_attached_and_in_training(model):
    images, judge = pictures(), model.discriminator
    plain = judge(images)
    which = augmenter(model, ada_p=0.9)
    with which.attached():
        which.draw(Noise(3))
        seen = judge(images)
        second = judge(images)
        judge.eval()
        assert torch.equal(judge(images), plain)
        judge.train()
    assert torch.equal(seen, judge(ada(images, SETS["ada"], 0.9, Noise(3))))
    assert not torch.equal(seen, second)      # reals and fakes of a turn are changed differently
    assert torch.equal(judge(images), plain)


def test_hooks_go_when_training_breaks_off(model):
    with pytest.raises(KeyboardInterrupt), augmenter(model, ada_p=0.9).attached():
        raise KeyboardInterrupt
    assert not model.discriminator._forward_pre_hooks


@pytest.mark.parametrize("name", ["ada", "ada:bgcfnc"])
def test_r1_is_the_gradient_to_the_images_before_they_were_changed(model, name):
    judge, images = model.discriminator.double(), pictures().double()
    which = augmenter(model, (name,), ada_p=0.7)

    def squared() -> torch.Tensor:
        x = images.clone().requires_grad_(True)
        logits = judge(ada(x, SETS[name], 0.7, Noise(3)))
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return gradient.square().sum() / len(x)

    expected = squared()
    with which.attached():
        which.draw(Noise(3))
        penalty = gradient_penalty(judge, images, None)
    assert float(penalty.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    # It moves the critic: along its gradient to a weight it grows by that gradient's length.
    weight = next(parameter for parameter in judge.parameters() if parameter.ndim == 4)
    (slope,) = torch.autograd.grad(expected, weight)
    values = []
    for length in (1e-6, -1e-6):
        weight.data.add_(length * slope / slope.norm())
        values.append(float(squared().detach()))
        weight.data.sub_(length * slope / slope.norm())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(slope.norm()), rel=1e-5)


# How p moves.


def test_p_rises_when_the_critic_overfits_and_falls_when_it_does_not(model):
    which = augmenter(model, ada_kimg=0.4, ada_p=0.25)
    assert which.watch() == {"p": 0.25}
    steps(which, 0.7, 3)
    assert which.watch()["p"] == 0.25                # not before the fourth step
    steps(which, 0.7, 1)
    assert which.watch() == {"p": 0.25 + 32 / 400, "sign_real": pytest.approx(0.7)}
    steps(which, 0.6, 4)                             # right on target
    assert which.watch()["p"] == 0.25 + 32 / 400
    steps(which, 0.5, 8)
    assert which.watch()["p"] == pytest.approx(0.25 - 32 / 400)


def test_the_mean_over_an_interval_decides(model):
    which = augmenter(model, ada_kimg=0.4)
    for sign in (1.0, 1.0, 1.0, -0.8):
        steps(which, sign, 1)
    assert which.watch() == {"p": 0.0, "sign_real": pytest.approx(0.55)}


def test_p_stays_between_0_and_1(model):
    which = augmenter(model, ada_kimg=0.1)
    assert steps(which, -1.0, 8).watch()["p"] == 0.0
    assert steps(which, 1.0, 16).watch()["p"] == 1.0
    assert ada(pictures(), SETS["ada:bgcfnc"], 1.0, Noise(0)).isfinite().all()


def test_values_that_are_not_finite_say_nothing(model):
    which = steps(augmenter(model, ada_kimg=0.4, ada_p=0.5), 1.0, 1)
    which.hear({"sign_real": float("nan")})
    assert steps(which, 1.0, 3).watch() == {"p": 0.5 + 32 / 400, "sign_real": 1.0}


def test_a_fixed_p_stays_and_a_ramp_ends(model):
    fixed = augmenter(model, ada_target=None, ada_p=0.2)
    assert steps(fixed, 1.0, 8).watch() == {}
    fixed.draw(Noise(0))
    assert torch.equal(fixed(pictures()), ada(pictures(), SETS["ada"], 0.2, Noise(0)))
    ramp = augmenter(model, ada_target=None, ada_p=0.2, ada_ramp_kimg=0.08)
    assert ramp(pictures()).equal(pictures())
    found = [steps(ramp, 1.0, 1).watch()["p"] for _ in range(12)]
    assert found == pytest.approx([0.02 * step for step in range(1, 11)] + [0.2, 0.2])


@pytest.mark.parametrize(
    "changes", [{"ada_kimg": 0.07}, {"ada_target": None, "ada_p": 0.3, "ada_ramp_kimg": 0.2}], ids=["steered", "ramp"]
)
def test_a_state_taken_at_any_step_goes_on_exactly(model, changes):
    signs = [0.1 * ((7 * step) % 11) for step in range(23)]
    for stop in range(23):
        whole, part, rest = (augmenter(model, **changes) for _ in range(3))
        for step, sign in enumerate(signs):
            steps(whole, sign, 1)
            if step == stop:
                rest.restore(json.loads(json.dumps(part.state())))
            steps(part if step < stop else rest, sign, 1)
        assert rest.state() == whole.state()
        assert rest.watch() == whole.watch()


def test_the_state_of_another_training_is_refused(model):
    assert augmenter(model, ("color",)).state() == {}
    with pytest.raises(zoo.ZooError, match="does not say where the augmentation stood"):
        augmenter(model).restore({})
    with pytest.raises(zoo.ZooError, match="does not say where the augmentation stood"):
        augmenter(model).restore({**augmenter(model).state(), "sum": "much"})


# In a training.


class Silent(DiscriminatorLoss):
    """A discriminator's loss that watches nothing."""

    def __call__(self, model, batch):
        return Terms(super().__call__(model, batch).minimise)


def test_a_recipe_that_watches_no_signs_is_told_so(tiny, tmp_path):
    model = tiny("dcgan")
    judge, maker = adversarial_phases(adversarial("nonsaturating"))
    recipe = replace(model.recipe(), phases=(replace(judge, loss=Silent(adversarial("nonsaturating"))), maker))
    options = {"kimg": 0.064, "batch": 8, "settings": {"augment": ("ada",)}}
    with pytest.raises(zoo.ZooError, match=r"'sign_real', .* which none of this recipe's losses watches"):
        zoo.train(model, "emoji:symbols", out=tmp_path / "run", recipe=recipe, **options)


@pytest.mark.parametrize(("name", "middle"), [("nonsaturating", 0.0), ("hinge", 0.0), ("least_squares", 0.5)])
def test_signs_are_counted_from_where_a_loss_divides_reals_from_fakes(tiny, name, middle):
    model = tiny("dcgan").eval()
    images = pictures(16)
    with torch.no_grad():
        model.discriminator.requires_grad_(False)
        expected = (model.discriminator(images) > middle).float().mean() * 2 - 1
        watched = DiscriminatorLoss(adversarial(name))(model, Batch(images, None, Noise(0))).watch
    assert float(watched["sign_real"]) == pytest.approx(float(expected))


@pytest.mark.parametrize("name", ["relativistic", "wasserstein"])
def test_logits_without_a_zero_give_no_signs(tiny, name):
    watched = DiscriminatorLoss(adversarial(name))(tiny("dcgan"), Batch(pictures(), None, Noise(0))).watch
    assert "sign_real" not in watched


def test_only_a_critic_that_had_its_turns_is_missed(model):
    waits, other, fixed = augmenter(model), augmenter(model), augmenter(model, ada_target=None, ada_p=0.3)
    for which, learns in ((waits, False), (other, False), (fixed, True)):
        with which.attached():
            model.discriminator.requires_grad_(learns)(pictures())      # as when others warm up, or the generator plays
        for _ in range(8):
            which.adapt(8)
    with waits.attached(), other.attached():
        model.discriminator.requires_grad_(True)(pictures())
    steps(other, 1.0, 1)
    with pytest.raises(zoo.ZooError, match="'sign_real'"):
        waits.adapt(8)


SETTINGS = {"augment": ("ada",), "ada_kimg": 0.1, "ada_target": 0.2}
TRAINING = f"""
import sys, torch, zoo
torch.set_num_threads(1)
sys.path.insert(0, {str(Path(__file__).parent)!r})
from conftest import TINY
torch.manual_seed(0)
model = zoo.create("stylegan", **TINY["stylegan"])
zoo.train(model, "emoji:symbols", out=sys.argv[1], kimg=0.48, batch=8, settings={SETTINGS!r}, tick_kimg=0.008,
          checkpoint_kimg=0.04, keep=20, resume=True)
"""


def tensors(directory: Path, step: int) -> dict[str, bytes]:
    """What a checkpoint holds of weights and optimisers, and where ADA stood."""
    found = directory / "checkpoints" / f"{step:08d}"
    files = {name: (found / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}
    return {**files, "ada": json.dumps(json.loads((found / "state.json").read_text())["augmentation"]).encode()}


def test_a_run_with_ada_goes_on_in_the_middle_of_an_interval(tiny, tmp_path):
    options = {"kimg": 0.112, "batch": 8, "settings": SETTINGS, "checkpoint_kimg": 0.056, "tick_kimg": 0.032}
    run = zoo.train(tiny("stylegan"), "emoji:symbols", out=tmp_path / "run", **options)
    whole = tensors(run.directory, 14)
    found = [line["augment"]["p"] for line in run.log]
    assert len(set(found)) > 1                       # p has moved
    shutil.rmtree(run.directory / "checkpoints" / "00000014")
    zoo.train(tiny("stylegan"), "emoji:symbols", out=tmp_path / "run", resume=True, **options)      # from step 7
    assert tensors(run.directory, 14) == whole
    assert [line["augment"]["p"] for line in run.log] == found


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 30, 45])
def test_a_run_with_r1_and_ada_that_is_killed_goes_on_to_the_bit(tmp_path, step):
    def start(name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", TRAINING, str(tmp_path / name)])      # 60 steps

    assert start("whole").wait() == 0
    process = start("cut")
    try:
        while not (tmp_path / "cut" / "checkpoints" / f"{step:08d}").exists():
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "cut" / "model").exists()
    assert start("cut").wait() == 0
    assert tensors(tmp_path / "cut", 60) == tensors(tmp_path / "whole", 60)
