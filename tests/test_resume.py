"""What a resumed run does with damaged checkpoints, changed settings and a shorter goal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch

import zoo

OPTIONS = {"batch": 8, "kimg": 0.064, "checkpoint_kimg": 0.016, "keep": 3}      # checkpoints at steps 2, 4, 6, 8


def train(model, out, **options):
    return zoo.train(model, "emoji", out=out, **{**OPTIONS, **options})


def damage(run, *names: str) -> None:
    for name in names:
        path = run.directory / "checkpoints" / name / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])


def kept(run) -> list[str]:
    return sorted(path.name for path in (run.directory / "checkpoints").iterdir())


def test_damaged_newer_checkpoints_do_not_push_out_the_whole_one(tiny, tmp_path):
    run = train(tiny("dcgan"), tmp_path / "run")
    damage(run, "00000006", "00000008")
    seen = []
    train(tiny("dcgan"), tmp_path / "run", resume=True, progress=lambda done, total, values: seen.append(kept(run)))
    assert seen[0] == ["00000004"]      # at the first tick of the resumed run
    assert kept(run) == ["00000004", "00000006", "00000008"]


def test_a_run_without_a_whole_checkpoint_is_not_started_over(tiny, tmp_path):
    run = train(tiny("dcgan"), tmp_path / "run")
    damage(run, *kept(run))
    log = (run.directory / "log.jsonl").read_text()
    with pytest.raises(zoo.ZooError, match="None of the checkpoints"):
        train(tiny("dcgan"), tmp_path / "run", resume=True)
    assert (run.directory / "log.jsonl").read_text() == log


def test_what_a_loss_was_made_with_is_recorded_and_must_stay(tiny, tmp_path):
    model = tiny("stylegan")
    run = train(model, tmp_path / "run", recipe=model.recipe(gamma=0.5))
    assert {"gamma": 0.5} in [phase["settings"] for phase in run.settings["recipe"]["phases"]]
    model = tiny("stylegan")
    with pytest.raises(zoo.ZooError, match=r"settings\.gamma=0\.5, now it is 5\.0: resume with the same settings"):
        train(model, tmp_path / "run", recipe=model.recipe(gamma=5.0), resume=True)


def test_the_setting_that_changed_is_named(tiny, tmp_path):
    train(tiny("dcgan"), tmp_path / "run")
    with pytest.raises(zoo.ZooError, match=r"recipe\.ema_kimg=10\.0, now it is 5\.0:"):
        train(tiny("dcgan"), tmp_path / "run", settings={"ema_kimg": 5.0}, resume=True)
    with pytest.raises(zoo.ZooError, match=r"recipe\.betas\.1=0\.999, now it is 0\.9:"):
        train(tiny("dcgan"), tmp_path / "run", settings={"betas": (0.5, 0.9)}, resume=True)


def test_a_folder_is_free_again_when_a_resume_was_refused(tiny, tmp_path):
    train(tiny("dcgan"), tmp_path / "run", kimg=0.032)
    with pytest.raises(zoo.ZooError, match="ema_kimg") as caught:
        train(tiny("dcgan"), tmp_path / "run", settings={"ema_kimg": 5.0}, resume=True)
    assert train(tiny("dcgan"), tmp_path / "run", resume=True).log[-1]["step"] == 8
    assert caught.tb      # as a notebook keeps the last error, with all its frames


def test_checkpoints_without_their_run_json_are_not_overwritten(tiny, tmp_path):
    run = train(tiny("dcgan"), tmp_path / "run")
    (run.directory / "run.json").unlink()
    with pytest.raises(zoo.ZooError, match=r"holds checkpoints, but no run\.json: restore that"):
        train(tiny("dcgan"), tmp_path / "run")
    with pytest.raises(zoo.ZooError, match=r"run\.json"):
        train(tiny("dcgan"), tmp_path / "run", resume=True)
    assert kept(run) == ["00000004", "00000006", "00000008"]


def test_a_shorter_goal_than_what_is_done_is_refused(tiny, tmp_path):
    run = train(tiny("dcgan"), tmp_path / "run")
    with pytest.raises(zoo.ZooError, match=r"more than the 0\.032"):
        train(tiny("dcgan"), tmp_path / "run", kimg=0.032, resume=True)
    assert run.settings["kimg"] == 0.064


def test_a_run_json_without_its_data_is_refused(tiny, tmp_path):
    run = train(tiny("dcgan"), tmp_path / "run")
    path = run.directory / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data": []}))
    with pytest.raises(zoo.ZooError, match="data"):
        train(tiny("dcgan"), tmp_path / "run", resume=True)


CUT = """
import resource
import sys
from pathlib import Path
from zoo.training.log import Log

log = Log(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))      # as on a full disk: no file may get a byte more
log.cut(4)
"""


def test_images_that_cannot_be_read_any_more_are_missed(tiny, tmp_path):
    run = train(tiny("dcgan"), tmp_path / "run", kimg=0.032)
    path = run.directory / "run.json"
    settings = json.loads(path.read_text())
    settings["data"]["images"] += 1
    path.write_text(json.dumps(settings))
    with pytest.raises(zoo.ZooError, match=f"with {settings['data']['images']} images that could be read, now there"):
        train(tiny("dcgan"), tmp_path / "run", resume=True)


def test_going_back_in_the_log_needs_no_room(tmp_path):
    lines = [json.dumps({"step": step, "kimg": step / 100}) + "\n" for step in (2, 4, 6, 8)]
    (tmp_path / "log.jsonl").write_text("".join(lines) + lines[0][:5])
    subprocess.run([sys.executable, "-c", CUT, tmp_path], check=True)
    assert (tmp_path / "log.jsonl").read_text() == lines[0] + lines[1]


def test_each_checkpoint_brings_a_tick(tiny, tmp_path):
    run = train(tiny("dcgan"), tmp_path / "run", tick_kimg=1.0)
    assert [line["step"] for line in run.log] == [2, 4, 6, 8]


def test_one_class_takes_unlabelled_images_only(tiny, tmp_path):
    with pytest.raises(zoo.ZooError, match="num_classes=8"):
        train(tiny("dcgan", num_classes=1), tmp_path / "run")
    run = zoo.train(tiny("dcgan", num_classes=1), "emoji:smileys-emotion", out=tmp_path / "one", **OPTIONS)
    assert run.model.sample(1, seed=0, labels=[0]).isfinite().all()


def test_a_parent_in_a_folder_is_named(tiny, tmp_path):
    parent = zoo.save(tiny("dcgan"), tmp_path / "parent")
    run = zoo.finetune(f"dir:{parent}", "emoji", out=tmp_path / "run", kimg=0.016, settings={"batch": 8})
    assert run.settings["parent"]["name"] == "dir:parent"
    shutil.rmtree(parent)
    assert torch.isfinite(run.model.sample(1, seed=0)).all()


def test_a_training_that_diverges_is_a_failure_of_the_work(tmp_path, capsys):
    from zoo.cli import main

    code = main(["train", "dcgan", "emoji", "--out", str(tmp_path / "run"), "--kimg", "0.4", "--batch", "8",
                 "--set", "lr=1e30", "--set", "resolution=16", "--set", "generator_width=4"])  # fmt: skip
    assert code == 1
    said = capsys.readouterr().err.splitlines()
    assert "generator.adversarial became nan" in said[0] or "discriminator.adversarial became" in said[0]
    assert [line for line in said if "Back to step 0" in line] == said[1:-1:2]
    assert not (tmp_path / "run" / "run.json").exists()      # nothing was learnt: the folder is free for another try
    assert "after going back 3 times: start another run with a lower lr (now 1e+30)" in said[-1]


def test_settings_of_the_recipe_leave_classes_to_be_fitted(tmp_path):
    from zoo.cli import main

    out = tmp_path / "run"
    given = ["finetune", "vae", "emoji:smileys-emotion", "--out", str(out), "--kimg", "0.016", "--set", "lr=1e-4"]
    assert main([*given, "--set", "batch=8"]) == 0
    assert json.loads((out / "run.json").read_text())["config"]["num_classes"] == 1
