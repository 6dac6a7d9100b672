"""APA: who is taken for a real, how p moves, and that a resume goes on exactly; and the pace of two time scales."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faults.kinds import DCGAN, SCHEDULE, emoji
from faults.undisturbed import differences, lines
from processes import together
from torch import nn

import zoo
from zoo.additions.apply import added
from zoo.deception import MEMORY, Deceived, Steering, with_deception
from zoo.noise import Noise
from zoo.recipe import Batch, Terms

BATCH = 4
QUICK = "apa:target=0.1,kimg=0.1"      # p moves by 16 images of 100 every fourth step
HALF, WHOLE = 10, 20


def batch(n: int = 8, seed: int = 3, labels: torch.Tensor | None = None) -> Batch:
    images = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch(images, labels, Noise(seed))


def remembered(model: nn.Module) -> float:
    return float(model.get_buffer(MEMORY)[0])


def fives(model: zoo.Model, given: Batch) -> torch.Tensor:
    """Fakes that no one takes for images in [-1, 1]; classes show."""
    rows = 5.0 if given.labels is None else 5.0 + given.labels.argmax(1)[:, None, None, None]
    return torch.ones_like(given.images) * rows


def seen_by(model: zoo.Model, given: Batch) -> torch.Tensor:
    seen: list[torch.Tensor] = []

    def loss(_: zoo.Model, judged: Batch) -> Terms:
        seen.append(judged.images)
        return Terms({"nothing": torch.zeros(())})

    Deceived(loss, fives)(model, given)
    return seen[0]


# What the critic takes for real.


def test_a_share_p_of_the_reals_are_fakes_and_the_rest_are_left_alone(tiny):
    model = tiny("dcgan")
    with_deception(model, model.recipe())
    given = batch(4000)
    assert torch.equal(seen_by(model, given), given.images)
    model.get_buffer(MEMORY)[0] = 0.3
    seen = seen_by(model, given)
    false = (seen == 5).flatten(1).all(1)
    assert torch.equal(seen[~false], given.images[~false])
    assert abs(float(false.float().mean()) - 0.3) < 4 * (0.21 / 4000) ** 0.5
    model.get_buffer(MEMORY)[0] = 1.0
    assert (seen_by(model, batch()) == 5).all()


def test_a_fake_has_the_label_of_the_image_whose_place_it_takes(tiny):
    model = tiny("dcgan", num_classes=3)
    with_deception(model, model.recipe())
    model.get_buffer(MEMORY)[0] = 0.5
    labels = torch.eye(3)[torch.arange(60) % 3]
    seen = seen_by(model, batch(60, labels=labels))
    false = (seen >= 5).flatten(1).all(1)
    assert 0 < int(false.sum()) < 60
    assert torch.equal(seen[false][:, 0, 0, 0], 5 + labels[false].argmax(1).float())


def test_every_turn_of_the_critic_is_deceived_and_no_other(tiny):
    model = tiny("stylegan")
    recipe = with_deception(model, model.recipe())
    deceived = [phase.name for phase in recipe.phases if isinstance(phase.loss, Deceived)]
    assert deceived == ["discriminator", "r1"]
    assert [phase.name for phase in recipe.phases if isinstance(phase.after, Steering)] == ["discriminator"]
    makes = {phase.loss.make for phase in recipe.phases if isinstance(phase.loss, Deceived)}
    assert makes == {recipe.phases[2].loss.loss.make}      # mixed styles, as the critic's fakes


def test_fakes_that_pass_as_reals_teach_the_generator_nothing(tiny):
    model = tiny("dcgan").train()
    recipe = with_deception(model, model.recipe())
    model.get_buffer(MEMORY)[0] = 1.0
    terms = recipe.phases[0].loss(model, batch())
    torch.autograd.backward(terms.total())
    assert all(value.grad is None for value in model.generator.parameters())
    assert any(value.grad is not None for value in model.discriminator.parameters())
    assert float(terms.watch["deceived"]) == 1.0


# How p moves.


def test_p_moves_as_adas_does(tiny):
    model = tiny("dcgan")
    recipe = with_deception(model, replace(model.recipe(), batch=50), target=0.5, kimg=1.0)
    after = recipe.phases[0].after
    signs = [0.9] * 8 + [0.5] * 4 + [0.7, 0.7, 0.0, 0.0] + [-1.0] * 8
    found = []
    for sign in signs:
        after(model, {"sign_real": torch.tensor(sign), "logits_real": torch.tensor(2.0)})
        found.append(remembered(model))
    step = 4 * 50 / 1000
    expected = [*[0.0] * 3, *[step] * 4, *[2 * step] * 8, *[step] * 4, *[0.0] * 5]
    assert found == pytest.approx(expected, abs=1e-6)
    after(model, {"sign_real": torch.tensor(float("nan"))})      # says nothing
    assert remembered(model) == 0.0


def test_a_loss_without_a_zero_cannot_steer(tiny, tmp_path):
    model = tiny("dcgan")
    with pytest.raises(zoo.ZooError, match="'sign_real', the mean sign of logits on reals, which this loss"):
        zoo.train(model, "emoji", kimg=0.008, batch=4, out=tmp_path, settings={"loss": "wasserstein"}, add=["apa"])


def test_a_model_without_a_critic_is_refused():
    model = zoo.create("vae", resolution=8, width=4, widest=8, latent=4, prior_width=8, prior_steps=2)
    with pytest.raises(zoo.ZooError, match="apa deceives a discriminator"):
        added(model, model.recipe(), ["apa"])


@pytest.mark.parametrize("text", ["apa:target=1.5", "apa:kimg=0", "apa:p=1"])
def test_options_have_their_range(tiny, text):
    model = tiny("dcgan")
    with pytest.raises(zoo.ZooError, match="apa"):
        added(model, model.recipe(), [text])


# Whole trainings.


def run(out: Path, steps: int, architecture: str = "dcgan", config: dict | None = None, add: str = QUICK) -> zoo.Run:
    torch.manual_seed(0)
    model = zoo.create(architecture, **(config or DCGAN))
    images = emoji(model.config.resolution)
    return zoo.train(model, images, kimg=steps * BATCH / 1000, batch=BATCH, out=out, resume=True, add=[add],
                     settings={"lr": 2e-3}, **SCHEDULE)  # fmt: skip


def in_processes(out: Path, steps: int) -> None:
    run(out, steps)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_that_goes_on_is_one_that_never_stopped(tmp_path, processes):
    for folder, steps in (("whole", WHOLE), ("parts", HALF), ("parts", WHOLE)):      # 10: between two moves of p
        if processes == 1:
            run(tmp_path / folder, steps)
        else:
            together(in_processes, processes, tmp_path / folder, steps)
    assert differences(tmp_path / "parts", tmp_path / "whole", also=["000000.040.png"]) == []
    moved = {line["terms"]["discriminator.deceived"] for line in lines(tmp_path / "whole")}
    assert len(moved) > 2      # p did move, before and after


@pytest.mark.parametrize("steps", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_so_many_steps_leave_no_trace(tmp_path, steps):
    finished = run(tmp_path / "run", steps)
    model = zoo.load(f"dir:{finished.directory}/model")
    assert MEMORY not in dict(model.named_buffers())
    assert torch.isfinite(model.sample(4, seed=0)).all()
    assert max(line["terms"]["discriminator.deceived"] for line in lines(finished.directory)) > 0.3
    assert finished.settings["recipe"]["added"] == ["apa:target=0.1,kimg=0.1"]


# Two time scales.


def test_each_player_has_its_pace(tiny):
    model = tiny("stylegan")
    recipe = added(model, model.recipe(), ["ttur:generator=0.5,discriminator=3"])
    rates = {phase.name: phase.rate for phase in recipe.phases}
    assert rates == {"generator": 0.5, "path_length": 0.5, "discriminator": 3.0, "r1": 3.0}


def test_who_moves_together_has_one_pace():
    model = zoo.create("vae", resolution=8, width=4, widest=8, latent=4, prior_width=8, prior_steps=2)
    with pytest.raises(zoo.ZooError, match=r"ttur sets the pace of a generator alone; vae moves: encoder\+decoder"):
        added(model, model.recipe(), ["ttur"])


def test_two_hundred_steps_at_two_paces_move_as_they_say(tmp_path):
    """Adam's first step moves every weight by its rate, whatever its gradient."""
    torch.manual_seed(0)
    before = zoo.create("dcgan", **DCGAN)
    finished = run(tmp_path / "one", 1, add="ttur:generator=0.5,discriminator=4")
    after = zoo.load(f"dir:{finished.directory}/model")
    for network, rate in (("generator", 0.5), ("discriminator", 4.0)):
        old, new = (model.get_submodule(network).get_parameter("head.weight") for model in (before, after))
        assert float((new - old).detach().abs().max()) == pytest.approx(2e-3 * rate, rel=1e-2)
    long = run(tmp_path / "long", 200, add="ttur")
    assert torch.isfinite(zoo.load(f"dir:{long.directory}/model").sample(4, seed=0)).all()
