"""What changes along a training: rates, momentum, averages and shares of changed images, against closed forms."""

from __future__ import annotations

import json
from dataclasses import replace
from math import cos, pi

import pytest
import torch
from faults.kinds import DCGAN, Kind, train
from faults.undisturbed import differences, lines

import zoo
from zoo.additions.apply import added
from zoo.noise import Noise
from zoo.recipe import Batch
from zoo.schedules import scheduled, share
from zoo.training import settled
from zoo.training.augmentation import Augmenter
from zoo.training.augmentation.diffaugment import diffaugment
from zoo.training.averaging import decay, follow
from zoo.training.optimisers import annealed, learning_rate, momenta, players

WHOLE, BATCH = 14, 4
SMALL = {"resolution": 8, "latent": 4, "channel_base": 64, "channel_max": 8, "group_width": 4, "blocks": 1}      # R3GAN


def with_settings(model: zoo.Model, **changes: object) -> zoo.Recipe:
    return settled(model.recipe(), changes)


# The functions.


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [3.0, 3.0, 3.0, 3.0, 3.0]),
        ("linear", [3.0, 2.5, 2.0, 1.5, 1.0]),
        ("cosine", [3.0, 2 + cos(pi / 4), 2.0, 2 - cos(pi / 4), 1.0]),
    ],
)
def test_a_schedule_goes_from_its_first_value_to_its_last(kind, expected):
    assert [scheduled(3.0, 1.0, step / 4, kind) for step in range(5)] == pytest.approx(expected, rel=1e-12)
    # The ends are met exactly, and hold.
    assert scheduled(0.9, 0.99, -0.5, kind) == scheduled(0.9, 0.99, 0.0, kind) == 0.9
    last = 0.9 if kind == "constant" else 0.99
    assert scheduled(0.9, 0.99, 1.0, kind) == scheduled(0.9, 0.99, 7.0, kind) == last


def test_a_share_is_held_between_nothing_and_all():
    assert [share(done, 4.0) for done in (-1, 0, 1, 4, 9)] == [0.0, 0.0, 0.25, 1.0, 1.0]
    assert share(0, 0.0) == 1.0


# Rate and momentum.


def test_the_rate_warms_up_in_a_straight_line_and_anneals(tiny):
    recipe = with_settings(tiny("dcgan"), lr=1.0, batch=10, lr_warmup_kimg=0.04, anneal="linear", final_rate=0.5)
    found = [learning_rate(recipe, step, 10) for step in range(10)]
    warm = [0.25, 0.5, 0.75, *[1.0] * 7]
    assert found == pytest.approx([(1 - 0.05 * step) * part for step, part in enumerate(warm)], rel=1e-12)
    plain = replace(recipe, lr_warmup_kimg=0.0)
    assert [learning_rate(plain, step, 10) for step in range(10)] == [annealed(plain, step / 10) for step in range(10)]


def test_betas_follow_the_line_of_the_rate(tiny):
    recipe = with_settings(tiny("dcgan"), betas=(0.0, 0.9), final_betas=(0.4, 0.99), anneal="linear")
    assert momenta(recipe, 0.5) == pytest.approx((0.2, 0.945))
    assert momenta(replace(recipe, final_betas=None), 0.5) == (0.0, 0.9)


def test_a_step_is_taken_with_the_betas_of_its_place(tiny):
    """Two steps with gradients 1 and 1, and second betas b then c: the moment is 1 - b + ... by hand."""
    model = tiny("dcgan")
    (player, *_) = players(model, model.recipe(), scale_gradients=False).values()
    weight = next(iter(player.parameters.values()))
    second = (0.9, 0.99)
    for beta in second:
        for parameter in player.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        player.apply(1e-3, (0.0, beta), None, player.norms())
    by_hand = second[1] * (1 - second[0]) + (1 - second[1])
    moment = player.optimizer.state[weight]["exp_avg_sq"]
    assert moment.flatten()[0].item() == pytest.approx(by_hand, rel=1e-6)


def test_betas_without_a_line_to_follow_are_refused(tiny, tmp_path):
    with pytest.raises(zoo.ZooError, match="nothing moves with anneal=constant; give linear or cosine"):
        zoo.train(tiny("dcgan"), "emoji", kimg=0.008, batch=4, out=tmp_path, settings={"final_betas": (0.5, 0.9)})


@pytest.mark.parametrize(
    ("name", "value"), [("final_betas", (0.0, 1.0)), ("lr_warmup_kimg", -1), ("augment_p", 1.5), ("anneal", "square")]
)
def test_settings_have_their_range(tiny, name, value):
    with pytest.raises(zoo.ZooError, match=name):
        with_settings(tiny("dcgan"), **{name: value})


# Averages.


def test_the_average_has_the_published_half_life(tiny):
    """beta = 0.5^(batch / min(ema, ramp seen)): after as many images as the half-life a jump is half forgotten."""
    recipe = with_settings(tiny("dcgan"), batch=100, ema_kimg=2.0, ema_rampup=0.05)
    for seen, half_life in ((100, 5), (10_000, 500), (40_000, 2000), (10**6, 2000)):
        assert decay(recipe, seen) == pytest.approx(0.5 ** (100 / half_life), rel=1e-12)
    assert decay(replace(recipe, ema_rampup=None), 100) == pytest.approx(0.5 ** (100 / 2000), rel=1e-12)
    kept = 1.0
    for step in range(20):
        kept *= decay(recipe, 40_000 + 100 * step)
    assert kept == pytest.approx(0.5, rel=1e-12)


def test_the_average_of_a_walk_is_the_sum_by_hand(tiny):
    model = tiny("dcgan").follow(("generator",))
    recipe = with_settings(model, batch=8, ema_kimg=0.05, ema_rampup=0.5)
    (name, weight), *_ = model.generator.named_parameters()
    average = model.averages["generator"].get_parameter(name)
    by_hand = average.detach().double().clone()
    for step in range(1, 30):
        with torch.no_grad():
            weight.copy_(torch.full_like(weight, float(step % 5)))
        keep = 0.5 ** (8 / min(50.0, 0.5 * 8 * step))
        by_hand = keep * by_hand + (1 - keep) * weight.detach().double()
        follow(model, decay(recipe, 8 * step))
    assert torch.allclose(average.double(), by_hand, atol=1e-5)


# The share of images that DiffAugment changes.


def pictures(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_share_of_the_images_is_changed_and_the_rest_left_alone():
    images, parts = pictures(4000)[:, :, :8, :8], ("color", "cutout")
    whole, some = (diffaugment(images, parts, Noise(3), p) for p in (1.0, 0.3))
    same = (some == images).flatten(1).all(1)
    assert abs(float(same.float().mean()) - 0.7) < 4 * (0.21 / 4000) ** 0.5
    assert torch.equal(some[~same], whole[~same])      # changed as it would be anyway
    assert torch.equal(diffaugment(images, parts, Noise(3), 0.0), images)


def test_that_share_may_rise(tiny):
    model = tiny("dcgan").train()
    recipe = with_settings(model, augment=("color",), augment_p=0.5, augment_ramp_kimg=0.04)
    which = Augmenter(recipe, model)
    assert torch.equal(which(pictures(4)), pictures(4))
    found = []
    for _ in range(6):
        which.adapt(10)
        found.append(which.watch()["p"])
    assert found == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    other = Augmenter(recipe, model)
    other.restore(json.loads(json.dumps(which.state())))
    assert other.watch() == which.watch()
    assert Augmenter(replace(recipe, augment_ramp_kimg=0.0), model).watch() == {}
    with pytest.raises(zoo.ZooError, match="augment_p=0: no image would ever change"):
        Augmenter(replace(recipe, augment_p=0.0), model)


# Penalties that fade.


@pytest.mark.parametrize(
    ("name", "add", "term"),
    [
        ("stylegan", (), "r1"),      # a turn of its own that the recipe has
        ("stylegan", ("r1:gamma=2,every=4",), "r1"),
        ("dcgan", ("r2:gamma=2",), "r2"),
        ("dcgan", ("gradient_penalty", "instance_noise:first=0.1"), "gradient_penalty"),      # within a wrapper
    ],
)
def test_a_penalty_goes_to_its_share_and_nothing_else_does(tiny, name, add, term):
    model = tiny(name).eval()
    images = pictures(4)

    def played(recipe: zoo.Recipe, progress: float) -> dict[str, float]:
        batches = {phase.name: Batch(images, None, Noise(1), progress) for phase in recipe.phases}
        terms = [phase.loss(model, batches[phase.name]).minimise for phase in recipe.phases]
        return {key: float(value.detach()) for each in terms for key, value in each.items()}

    fades = "fading_penalty:last=0.2,kind=linear"
    plain, fading = (added(model, model.recipe(), [*add, *more]) for more in ((), (fades,)))
    for progress in (0.0, 0.5, 1.0):
        before, after = played(plain, progress), played(fading, progress)
        assert after[term] == pytest.approx((1 - 0.8 * progress) * before[term], rel=1e-5)
        assert before[term] > 0
        assert {key: value for key, value in after.items() if key != term} == pytest.approx(
            {key: value for key, value in before.items() if key != term}, rel=1e-5
        )


@pytest.mark.parametrize(("name", "said"), [("dcgan", "no gradient penalty"), ("r3gan", "within its loss, with gamma")])
def test_penalties_that_cannot_fade_are_refused(name, said):
    model = zoo.create(name, **(SMALL if name == "r3gan" else DCGAN))
    with pytest.raises(zoo.ZooError, match=said):
        added(model, model.recipe(), ["fading_penalty"])


# Whole trainings.

EVERYTHING = {
    "anneal": "cosine", "final_rate": 0.2, "final_betas": (0.3, 0.99), "lr_warmup_kimg": 0.02,
    "augment": ("color", "translation"), "augment_p": 0.8, "augment_ramp_kimg": 0.04,
}  # fmt: skip


def test_a_training_that_stops_on_the_way_goes_on_exactly(tmp_path):
    """Stopped in the warm-up and in the ramp, at a step where neither a log line nor a checkpoint is due."""
    kind = Kind("all schedules", "dcgan", DCGAN, {"settings": EVERYTHING})
    train(kind, tmp_path / "whole", steps=WHOLE)

    def stop(done: float, total: float, values: object) -> None:
        if done == 3 * BATCH / 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(kind, tmp_path / "parts", steps=WHOLE, progress=stop)
    train(kind, tmp_path / "parts", steps=WHOLE)
    assert differences(tmp_path / "parts", tmp_path / "whole") == []
    told = lines(tmp_path / "whole")
    assert [line["augment"]["p"] for line in told[:2]] == pytest.approx([0.8 * 12 / 40, 0.8 * 16 / 40])
    assert told[0]["lr"] == pytest.approx(2e-4 * (0.2 + 0.8 * (1 + cos(pi * 3 / WHOLE)) / 2) * 16 / 20)


@pytest.mark.slow
def test_two_hundred_steps_of_r3gan_with_its_schedules(tmp_path):
    torch.manual_seed(0)
    model = zoo.create("r3gan", **SMALL)
    settings = {"lr_warmup_kimg": 0.1, "lr": 1e-3, "augment": ("translation",), "augment_ramp_kimg": 0.4}
    run = zoo.train(model, "emoji", kimg=0.8, batch=4, out=tmp_path / "run", settings=settings, tick_kimg=0.2)
    last = lines(run.directory)[-1]
    assert last["step"] == 200
    assert last["lr"] == pytest.approx(2.5e-4)
    assert last["augment"]["p"] == 1.0
    assert torch.isfinite(zoo.load(f"dir:{run.directory}/model").sample(4, seed=0)).all()
