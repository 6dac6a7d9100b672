"""Progressive growing: stages on time, exact at both ends, and trainings that leave a plain network."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from faults.kinds import SCHEDULE, emoji
from faults.undisturbed import differences, lines
from processes import together
from safetensors.torch import load_file

import zoo
from zoo.additions.apply import added
from zoo.growing import begin, with_growth
from zoo.noise import Noise
from zoo.recipe import Batch
from zoo.stages import Growth, Stage, brought, enter, resolutions_of

BATCH = 4
STYLEGAN = {"resolution": 16, "latent": 8, "w": 8, "mapping_layers": 2, "channel_base": 128, "channel_max": 8}
R3GAN = {"resolution": 16, "latent": 4, "channel_base": 128, "channel_max": 8, "group_width": 4, "blocks": 1}
GENERATORS = {
    "stylegan": ("stylegan", STYLEGAN),
    "stylegan, residual": ("stylegan", {**STYLEGAN, "synthesis_architecture": "resnet"}),
    "r3gan": ("r3gan", R3GAN),
}
CRITICS = {**GENERATORS, "stylegan, skip": ("stylegan", {**STYLEGAN, "discriminator_architecture": "skip"})}
SHORT = "progressive:first=4,until=0.8,fade=0.6"
WHOLE = 20
# Of 20 steps: 4 pixels until 6.15, 8 from there to 12.31, fading until 9.85, then 16, whole at 16.


def lively(name: str, config: dict) -> zoo.Model:
    """A model in which every branch says something: R3GAN's begin at zero, StyleGAN's noise too."""
    torch.manual_seed(0)
    model = zoo.create(name, **config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.3)
    return model.follow(("generator",))


def at(model: zoo.Model, resolution: int | None, alpha: float = 1.0) -> zoo.Model:
    enter(model, None if resolution is None else Stage(resolution, torch.tensor(alpha)))
    return model


def drawn(model: zoo.Model) -> torch.Tensor:
    return model.sample(3, seed=1, clamp=False)


by_generator = pytest.mark.parametrize(("name", "config"), GENERATORS.values(), ids=GENERATORS)
by_critic = pytest.mark.parametrize(("name", "config"), CRITICS.values(), ids=CRITICS)


# When.


def test_stages_come_in_their_time():
    growth = Growth(first=4, until=0.5, fade=0.5)      # 3 stages: 0.2 of the training each, the last until it is in
    found = [growth.at((4, 8, 16), step / 100) for step in range(101)]
    told = [(16, None) if stage is None else (stage.resolution, round(float(stage.alpha), 6)) for stage in found]
    assert told[:21] == [(4, 1.0)] * 21
    assert told[21:31] == [(8, pytest.approx(0.1 * step)) for step in range(1, 11)]
    assert told[31:41] == [(8, 1.0)] * 10
    assert told[41:50] == [(16, pytest.approx(0.1 * step)) for step in range(1, 10)]
    assert told[50:] == [(16, None)] * 51
    assert [Growth(8, 0.5, 0.5).at((4, 8, 16), share).resolution for share in (0.0, 0.3)] == [8, 8]


@pytest.mark.parametrize("first", [4, 8, 16])
def test_a_fade_never_jumps(first):
    growth, stages = Growth(first, 0.7, 1.0), (4, 8, 16, 32)
    levels = [growth.at(stages, step / 1000) for step in range(1000)]
    detail = [5.0 if stage is None else stages.index(stage.resolution) + 1 + float(stage.alpha) for stage in levels]
    steps = [after - before for before, after in pairwise(detail)]
    assert min(steps) >= 0
    assert max(steps) < 1.5 * 4 / 700


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("progressive:first=16", "first=16: training in stages can begin with 4, 8 pixels here"),
        ("progressive:first=5", "can begin with 4, 8 pixels"),
        ("progressive:until=1", "until"),
        ("progressive:fade=0", "fade"),
    ],
)
def test_what_cannot_be_grown_so_is_refused(text, said):
    model = zoo.create("stylegan", **STYLEGAN)
    with pytest.raises(zoo.ZooError, match=said):
        added(model, model.recipe(), [text])


@pytest.mark.parametrize(
    ("name", "config"),
    [("dcgan", {"resolution": 16}), ("stylegan", {**STYLEGAN, "synthesis_architecture": "orig"}),
     ("vae", {"resolution": 8, "width": 4, "widest": 8, "latent": 4, "prior_width": 8, "prior_steps": 2})],
)  # fmt: skip
def test_a_model_without_stages_is_refused(name, config):
    model = zoo.create(name, **config)
    with pytest.raises(zoo.ZooError, match="no generator that can be trained in stages"):
        added(model, model.recipe(), ["progressive"])


# What a stage computes.


@by_generator
def test_a_stage_is_the_one_before_enlarged_and_grows_into_the_next(name, config):
    model = lively(name, config)
    plain = drawn(model)
    assert torch.equal(drawn(at(model, 16, 1.0)), plain)      # the last stage, all in, is the plain network
    assert torch.equal(drawn(at(model, None)), plain)
    before, after = drawn(at(model, 8)), drawn(at(model, 16))
    assert before.shape == plain.shape
    assert not torch.allclose(before, after, atol=1e-3)
    # It can make no more detail than its resolution has: what is enlarged from it is all there is.
    nothing = drawn(at(model, 16, 1e-12))
    assert torch.allclose(nothing, before, atol=1e-5)
    half = drawn(at(model, 16, 0.5))
    assert not torch.allclose(half, before, atol=1e-3)
    assert not torch.allclose(half, after, atol=1e-3)


def test_a_stage_of_skips_is_the_smaller_image_enlarged_exactly():
    """The same weights without their last block are a network of half the resolution: its image, doubled."""
    model = lively("stylegan", STYLEGAN)
    small = zoo.create("stylegan", **{**STYLEGAN, "resolution": 8}).follow(("generator",))
    tensors = {name: value for name, value in model.state_dict().items() if name in small.state_dict()
               and "discriminator" not in name}  # fmt: skip
    small.load_state_dict(tensors, strict=False)
    z = model.latent(3, Noise(5))
    expected = model.generator.enlarge(small.sample(z=z, noise="none", clamp=False))
    assert torch.equal(at(model, 8).sample(z=z, noise="none", clamp=False), expected)
    drawn_by_last = model.sample(z=z, noise="none", clamp=False)
    assert torch.equal(drawn_by_last, expected)
    whole = at(model, None).sample(z=z, noise="none", clamp=False)
    mixed = at(model, 16, 0.25).sample(z=z, noise="none", clamp=False)
    assert torch.allclose(mixed, expected + 0.25 * (whole - expected), atol=1e-5)


@by_critic
def test_a_critic_grows_from_what_it_was_into_the_plain_one(name, config):
    model, images = lively(name, config), torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    plain = model.logits(images)
    assert torch.equal(at(model, 16, 1.0).logits(images), plain)
    before, nothing = at(model, 8).logits(images), at(model, 16, 1e-12).logits(images)
    assert not torch.allclose(before, plain, atol=1e-3)
    assert torch.allclose(nothing, before, rtol=1e-4, atol=1e-5)


@by_critic
def test_blocks_beyond_a_stage_are_not_trained(name, config):
    model = at(lively(name, config), 8).train()
    noise = Noise(1)
    images = model.generator(model.latent(4, noise), None)
    (model.discriminator(images, None).sum() + images.square().sum()).backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    last = [name for name in reached if ".16x16." in name or ".16." in name]
    kept = [name for name in last if ".skip." in name or ".to_image." in name or ".fit." in name]
    assert last == kept      # only what passes images on
    assert {name.split(".")[0] for name in reached} == {"generator", "discriminator"}


# What the critic sees of reals.


@by_generator
def test_reals_have_the_detail_of_the_stage(name, config):
    model = lively(name, config)
    enlarge = model.generator.enlarge
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    halves, quarters = (images.unfold(2, n, n).unfold(3, n, n).mean((4, 5)) for n in (2, 4))
    assert torch.equal(brought(images, Stage(16, torch.tensor(1.0)), enlarge), images)
    assert torch.allclose(brought(images, Stage(4, torch.tensor(1.0)), enlarge), enlarge(enlarge(quarters)), atol=1e-6)
    found = brought(images, Stage(8, torch.tensor(0.3)), enlarge)
    assert torch.allclose(found, enlarge(0.7 * enlarge(quarters) + 0.3 * halves), atol=1e-6)


def test_losses_see_reals_of_the_stage_and_gradients_reach_whole_images():
    model = zoo.create("stylegan", **STYLEGAN)
    recipe = with_growth(model, model.recipe(), first=4, until=0.5, fade=0.5)
    begin(model, recipe)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    values = []
    for progress in (0.0, 0.3, 0.6):
        model.advance(progress)
        terms = recipe.phases[-1].loss(model, Batch(images, None, Noise(1), progress))      # R1
        values.append(float(terms.minimise["r1"].detach()))
    assert len(set(values)) == 3
    assert min(values) > 0
    plain = model.recipe().phases[-1].loss(model, Batch(images, None, Noise(1), 0.6))
    assert values[-1] == float(plain.minimise["r1"].detach())


# Whole trainings.


def run(out: Path, name: str, config: dict, steps: int = WHOLE, add: str = SHORT, **options: object) -> zoo.Run:
    torch.manual_seed(0)
    model = zoo.create(name, **config)
    images = emoji(model.config.resolution)
    return zoo.train(model, images, kimg=steps * BATCH / 1000, batch=BATCH, out=out, resume=True, add=[add],
                     **{**SCHEDULE, **options})  # fmt: skip


def stopped(out: Path, step: int, **options: object) -> None:
    """Break a training off at a log line, between the checkpoint before and the next; then go on with it."""

    def stop(done: float, total: float, values: object) -> None:
        if round(done * 1000 / BATCH) == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out, "stylegan", STYLEGAN, progress=stop, **options)
    run(out, "stylegan", STYLEGAN, **options)


def in_two(out: Path, broken: bool) -> None:
    """Train in this process of two; broken, the first is told to stop in a fade, and both go on in a second run."""
    options = {"settings": {"augment": ("ada",), "ada_kimg": 0.1}}
    if not broken:
        run(out, "stylegan", STYLEGAN, **options)
        return

    def stop(done: float, total: float, values: object) -> None:
        if round(done * 1000 / BATCH) == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(zoo.errors.Interrupted):
        run(out, "stylegan", STYLEGAN, progress=stop, **options)


def test_a_training_broken_off_around_each_border_goes_on_exactly(tmp_path):
    run(tmp_path / "whole", "stylegan", STYLEGAN)
    for step in (6, 12, 15):      # from the checkpoints of 4, 8 and 12: before a border, in a fade, before the next
        stopped(tmp_path / str(step), step)
        assert differences(tmp_path / str(step), tmp_path / "whole") == []


@pytest.mark.slow
def test_in_two_processes_too(tmp_path):
    for folder, broken in (("whole", False), ("parts", True), ("parts", False)):
        together(in_two, 2, tmp_path / folder, broken)
    assert differences(tmp_path / "parts", tmp_path / "whole") == []


@pytest.mark.parametrize("steps", [40, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "config"), [("stylegan", STYLEGAN), ("r3gan", R3GAN)])
def test_so_many_steps_through_all_stages_leave_a_plain_network(tmp_path, name, config, steps):
    torch.manual_seed(0)
    before = zoo.create(name, **config)
    finished = run(tmp_path / "run", name, config, steps=steps, settings={"augment": ("color",)}, **QUIET)
    model = zoo.load(f"dir:{finished.directory}/model")
    assert set(model.state_dict()) == set(before.follow(("generator",)).state_dict())
    assert model.growth is None
    assert all(network.stage is None for network in model.networks().values() if resolutions_of(network))
    moved = [name for name, value in model.named_parameters() if not torch.equal(value, before.get_parameter(name))]
    assert any(".16" in name for name in moved)      # the last block did learn
    assert torch.isfinite(model.sample(4, seed=0)).all()
    assert finished.settings["recipe"]["added"] == [SHORT]
    assert finished.settings["recipe"]["phases"][0]["settings"]["growth"] == "first=4, until=0.8, fade=0.6"
    assert lines(finished.directory)[-1]["step"] == steps


QUIET = {"tick_kimg": 0.2, "sample_kimg": 1.0, "checkpoint_kimg": 1.0}


def test_a_model_in_memory_is_whole_after_its_training(tmp_path):
    model = zoo.create("stylegan", **STYLEGAN)
    finished = zoo.train(model, emoji(16), kimg=0.008, batch=BATCH, out=tmp_path / "run", add=[SHORT])
    assert model.growth is None
    assert model.generator.stage is model.averages["generator"].stage is None
    kept = load_file(finished.directory / "model" / "model.safetensors")
    assert set(kept) == set(model.state_dict())


def test_what_a_broken_training_left_is_forgotten_by_the_next(tmp_path):
    def stop(done: float, total: float, values: object) -> None:
        raise KeyboardInterrupt

    model = zoo.create("stylegan", **STYLEGAN)
    options = {"batch": BATCH, "kimg": 0.02, "tick_kimg": 0.004}
    with pytest.raises(KeyboardInterrupt):
        zoo.train(model, emoji(16), out=tmp_path / "grown", add=[SHORT], progress=stop, **options)
    assert model.generator.stage is not None
    with pytest.raises(KeyboardInterrupt):
        zoo.train(model, emoji(16), out=tmp_path / "plain", progress=stop, **options)
    assert model.growth is None
    assert model.generator.stage is model.averages["generator"].stage is model.discriminator.stage is None


def test_unreached_blocks_have_no_moments_yet(tmp_path):
    """The optimiser knows a block from the step on that it acts in; one that is wholly absent stays as it was."""
    run(tmp_path / "run", "stylegan", STYLEGAN, progress=None, checkpoint_kimg=4 * BATCH / 1000, keep=9)
    early, late = (load_file(tmp_path / "run" / "checkpoints" / f"{step:08}" / "optimizer.safetensors")
                   for step in (4, 20))  # fmt: skip
    name = "generator.blocks.16x16.conv0.conv.weight"
    assert not [key for key in early if name in key]
    assert [key for key in late if name in key]
