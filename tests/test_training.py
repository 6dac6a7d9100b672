"""The loop through the public surface: what a run leaves, that it repeats, resumes and shares out exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import zoo
from zoo.adversarial import adversarial_phases, r1_loss
from zoo.cli import main
from zoo.losses import adversarial
from zoo.penalties import clip_weights
from zoo.recipe import Phase, Terms
from zoo.training import log as training_log

SHORT = {"batch": 8, "kimg": 0.064}      # eight steps


def train(model, out, **options):
    return zoo.train(model, "emoji", out=out, **{**SHORT, **options})


def weights(run) -> dict[str, torch.Tensor]:
    return load_file(run.directory / "model" / "model.safetensors")


def furthest(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


def test_a_run_leaves_everything_to_repeat_and_judge_it(curves, tiny, tmp_path):
    run = train(tiny("dcgan"), tmp_path / "run", sample_kimg=0.032, checkpoint_kimg=0.032, tick_kimg=0.016)
    settings = run.settings
    assert settings["architecture"] == "dcgan"
    assert settings["data"]["images"] == 1636
    assert len(settings["data"]["fingerprint"]) == 64
    assert settings["recipe"]["batch"] == 8
    assert "torch" in settings["versions"]
    assert [line["kimg"] for line in run.log] == pytest.approx([0.016, 0.032, 0.048, 0.064])
    assert {"discriminator.adversarial", "generator.adversarial"} <= set(run.log[0]["terms"])
    assert sorted(path.name for path in (run.directory / "samples").iterdir()) == [
        "000000.032.png", "000000.064.png", "000000.png",
    ]  # fmt: skip
    assert (run.directory / "curves.png").stat().st_size > 5000
    names = {path.name for path in (run.directory / "model").iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "manifest.json"} <= names
    assert torch.equal(run.model.sample(2, seed=3), zoo.load(f"dir:{run.directory}/model").sample(2, seed=3))


def test_curves_have_a_panel_for_whatever_a_log_tells(curves, tmp_path):
    lines = [
        {"kimg": 1, "terms": {"generator.adversarial": None, "generator.other": 1}},      # not finite
        {"kimg": 2, "terms": {"generator.adversarial": 0.5, "r1.r1": 3.0}, "watchdog": {"spread": 0.9, "copies": "no"}},
        {"kimg": 3, "terms": {"generator.adversarial": 0.25}, "watchdog": {"spread": 0.8}},
    ]
    drawing, path = tmp_path / "curves.png", tmp_path / "log.jsonl"
    drawn = []
    for count in range(len(lines) + 1):
        path.write_text("".join(json.dumps({"step": line["kimg"], **line}) + "\n" for line in lines[:count]))
        training_log.curves(path, drawing)
        drawn.append(np.array(Image.open(drawing)) if drawing.exists() else None)
    assert drawn[0] is None
    panel = len(drawn[1])
    assert [len(picture) for picture in drawn[2:]] == [3 * panel, 3 * panel]
    assert not np.array_equal(drawn[2], drawn[3])


def test_the_same_seed_repeats_and_another_differs(tiny, tmp_path):
    first, again = (weights(train(tiny("stylegan"), tmp_path / name, seed=1)) for name in "ab")
    other = weights(train(tiny("stylegan"), tmp_path / "c", seed=2))
    assert furthest(first, again) == 0
    assert furthest(first, other) > 1e-4


@pytest.mark.parametrize("name", ["stylegan", "dcgan"])
def test_resume_goes_on_as_if_never_stopped(tiny, tmp_path, name):
    options = {"checkpoint_kimg": 0.04, "tick_kimg": 0.008, "settings": {"augment": ("color", "translation")}}
    whole = train(tiny(name), tmp_path / "whole", **options)
    part = train(tiny(name), tmp_path / "part", **options)
    # What a crash after step 5 leaves: the checkpoint of step 5, and a log that went further.
    (part.directory / "checkpoints" / "00000008").rename(tmp_path / "lost")
    resumed = train(tiny(name), tmp_path / "part", resume=True, **options)
    assert furthest(weights(whole), weights(resumed)) == 0
    logs = [[{**line, "seconds": 0, "images_per_second": 0} for line in run.log] for run in (whole, resumed)]
    assert logs[0] == logs[1]


def test_resume_passes_over_a_damaged_checkpoint(tiny, tmp_path, caplog):
    options = {"checkpoint_kimg": 0.04}
    whole = train(tiny("dcgan"), tmp_path / "run", **options)
    expected = weights(whole)
    damaged = whole.directory / "checkpoints" / "00000008" / "optimizer.safetensors"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(bytes(data))
    resumed = train(tiny("dcgan"), tmp_path / "run", resume=True, **options)
    assert "00000008" in caplog.text
    assert "damaged" in caplog.text
    assert furthest(expected, weights(resumed)) == 0


def test_a_run_is_not_overwritten_and_not_resumed_with_other_settings(tiny, tmp_path):
    train(tiny("dcgan"), tmp_path / "run")
    with pytest.raises(zoo.ZooError, match="already holds a run"):
        train(tiny("dcgan"), tmp_path / "run")
    with pytest.raises(zoo.ZooError, match="resume with the same settings"):
        train(tiny("dcgan"), tmp_path / "run", resume=True, settings={"lr": 1e-3})


def test_resume_without_a_run_starts_one(tiny, tmp_path):
    assert train(tiny("dcgan"), tmp_path / "run", resume=True).log[-1]["step"] == 8


def test_micro_batches_give_the_weights_of_the_whole_batch(tiny, tmp_path):
    # A larger eps keeps Adam from blowing up rounding noise where a gradient is almost zero.
    options = {"settings": {"eps": 1e-4, "augment": ("color", "translation", "cutout")}, "batch": 16, "kimg": 0.08}
    whole = train(tiny("stylegan"), tmp_path / "whole", **options)
    parts = train(tiny("stylegan"), tmp_path / "parts", accumulate=2, **options)
    assert furthest(weights(whole), weights(parts)) < 1e-5


def test_two_processes_give_the_weights_of_one(tmp_path):
    command = [
        "train", "stylegan", "emoji", "--kimg", "0.08", "--batch", "16", "--set", "eps=1e-4",
        *(part for name, value in {"resolution": 16, "latent": 16, "w": 16, "mapping_layers": 2, "channel_base": 128,
                                   "channel_max": 16}.items() for part in ("--set", f"{name}={value}")),
    ]  # fmt: skip
    assert main([*command, "--out", str(tmp_path / "1")]) == 0
    subprocess.run(
        [sys.executable, "-m", "zoo", *command, "--out", str(tmp_path / "2"), "--processes", "2"],
        check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
    )  # fmt: skip
    found = {}
    for processes in (1, 2):
        out = tmp_path / str(processes)
        assert json.loads((out / "run.json").read_text())["processes"] == processes
        found[processes] = load_file(out / "model" / "model.safetensors")
    assert furthest(found[1], found[2]) < 1e-5


def test_batch_that_does_not_divide_is_refused(tiny, tmp_path):
    with pytest.raises(zoo.ZooError, match="multiple of 3"):
        train(tiny("dcgan"), tmp_path / "run", accumulate=3)


def test_each_phase_moves_only_what_it_trains(tiny, tmp_path):
    model = tiny("dcgan")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = model.recipe()
    train(model, tmp_path / "run", recipe=replace(recipe, phases=recipe.phases[:1]))
    changed = {n.split(".")[0] for n, p in model.named_parameters() if n in before and not torch.equal(p, before[n])}
    assert changed == {"discriminator"}


def test_frozen_parameters_stand_still(tiny, tmp_path):
    model = tiny("dcgan")
    recipe = model.recipe()
    discriminator, generator = recipe.phases
    frozen = replace(discriminator, frozen=("discriminator.from_image.*",))
    before = {name: value.clone() for name, value in model.discriminator.named_parameters()}
    train(model, tmp_path / "run", recipe=replace(recipe, phases=(frozen, generator)))
    for name, value in model.discriminator.named_parameters():
        assert torch.equal(value, before[name]) == name.startswith("from_image.")


def test_projection_follows_each_step(tiny, tmp_path):
    model = tiny("dcgan")
    critic, generator = adversarial_phases(adversarial("wasserstein"))
    recipe = replace(
        model.recipe(), phases=(replace(critic, project=clip_weights), replace(generator, every=5)), lr=5e-5
    )
    train(model, tmp_path / "run", recipe=recipe)
    assert max(float(value.detach().abs().max()) for value in model.discriminator.parameters()) <= 0.01


def test_lazy_phase_runs_every_kth_step_with_k_times_the_weight(tiny, tmp_path):
    seen = []

    def counted(model, batch):
        seen.append(batch.progress)
        return r1_loss(1.0)(model, batch)

    model = tiny("stylegan")
    recipe = replace(model.recipe(), phases=(*model.recipe().phases[:-1], Phase("r1", ("discriminator",), counted, 4)))
    train(model, tmp_path / "run", recipe=recipe)
    assert seen == [0.0, 0.5]      # steps 0 and 4 of 8


def test_lazy_gradients_weigh_k_times(tiny, tmp_path):
    """With plain gradient steps in place of Adam's, one lazy step of weight k moves k times as far."""
    from zoo.training.optimisers import players

    model = tiny("dcgan")

    def push(model, batch):
        return Terms({"push": model.discriminator.head.weight.sum()})

    lazy = Phase("lazy", ("discriminator",), push, every=4)
    main = Phase("main", ("discriminator",), push)
    (player,) = players(model, replace(model.recipe(), phases=(main, lazy)), scale_gradients=False).values()
    assert player.weight(main) == 1
    assert player.weight(lazy) == 4
    player.apply(0.01, (0.5, 0.999), None, player.norms())      # without gradients nothing moves
    group = player.optimizer.param_groups[0]
    assert group["lr"] == pytest.approx(0.01 * 0.8)
    assert group["betas"] == pytest.approx((0.5**0.8, 0.999**0.8))


def test_average_follows_by_half_life(tiny, tmp_path):
    """After one half-life of constant weights the average has gone half the way."""
    from zoo.training.averaging import decay, follow

    model = tiny("dcgan").follow(("generator",))
    recipe = replace(model.recipe(), batch=100, ema_kimg=1.0, ema_rampup=None)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.fill_(1.0)
        for parameter in model.averages["generator"].parameters():
            parameter.fill_(0.0)
    for step in range(1, 11):
        follow(model, decay(recipe, step * 100))
    for parameter in model.averages["generator"].parameters():
        assert torch.allclose(parameter, torch.tensor(0.5), atol=1e-6)


@pytest.mark.parametrize(
    ("anneal", "expected"), [("constant", [1, 1, 1]), ("linear", [1, 0.55, 0.1]), ("cosine", [1, 0.55, 0.1])]
)
def test_learning_rate_anneals(tiny, anneal, expected):
    from zoo.training.optimisers import annealed

    recipe = replace(tiny("dcgan").recipe(), lr=1.0, anneal=anneal, final_rate=0.1)
    assert [annealed(recipe, share) for share in (0.0, 0.5, 1.0)] == pytest.approx(expected)


def test_gradients_are_clipped(tiny, tmp_path):
    """Plain Adam hides the scale of a gradient, so its second moment is what shows the clipping."""
    model = tiny("dcgan")
    run = train(model, tmp_path / "run", kimg=0.008, settings={"clip_norm": 1e-3}, checkpoint_kimg=0.008)
    state = load_file(run.directory / "checkpoints" / "00000001" / "optimizer.safetensors")
    second = sum(float(v.sum()) for n, v in state.items() if n.startswith("generator/exp_avg_sq/"))
    assert second == pytest.approx((1 - 0.999) * 1e-6, rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains(tiny, tmp_path, precision):
    run = train(tiny("dcgan"), tmp_path / "run", precision=precision)
    full = train(tiny("dcgan"), tmp_path / "full")
    assert run.settings["precision"] == precision
    assert 0 < furthest(weights(run), weights(full)) < 0.1


def test_a_loss_that_is_not_finite_ends_the_run_and_is_named(tiny, tmp_path):
    model = tiny("dcgan")
    recipe = model.recipe()

    def broken(model, batch):
        return Terms({"adversarial": (batch.images.sum() + model.discriminator.head.weight.sum()) * float("nan")})

    phases = (replace(recipe.phases[0], loss=broken), recipe.phases[1])
    with pytest.raises(zoo.ZooError, match=r"discriminator\.adversarial became nan"):
        train(model, tmp_path / "run", recipe=replace(recipe, phases=phases))
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr"),
        ({"learning_rate": 1.0}, "No setting 'learning_rate'"),
        ({"betas": (0.5, 1.5)}, "betas"),
        ({"anneal": "slowly"}, "anneal"),
        ({"augment": ("colour",)}, "Did you mean 'color'"),
        ({"batch": 0}, "batch"),
        ({"lr": float("nan")}, "lr"),
    ],
)
def test_wrong_settings_are_named(tiny, tmp_path, settings, message):
    with pytest.raises(zoo.ZooError, match=message) as caught:
        zoo.train(tiny("dcgan"), "emoji", kimg=0.01, out=tmp_path / "run", settings=settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_labels_must_fit_the_model(tiny, tmp_path):
    with pytest.raises(zoo.ZooError, match="num_classes=8"):
        train(tiny("dcgan", num_classes=3), tmp_path / "run")
