"""Trackers show what log.jsonl says, go on after a break, fail by themselves and leave the training as it is.

The tests of tensorboard, trackio and wandb are skipped where these are not installed. What holds for any tracker is
tested with one that is registered with Accelerate here, as a user's own would be.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import tomllib
import warnings
from importlib.util import find_spec
from math import inf, nan
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

import zoo
from zoo.errors import ConfigError
from zoo.training import Run, tracking
from zoo.training.tracking import Trackers, check, numbers

ROOT = Path(__file__).parent.parent
OPTIONS = {"batch": 8, "kimg": 0.064, "tick_kimg": 0.016, "sample_kimg": 0.032, "checkpoint_kimg": 0.032}


class Paper(GeneralTracker):
    """Writes what it is given to a file, noisily: it prints, and draws from every generator."""

    name = "paper"
    requires_logging_directory = True
    fails = ""      # the call that raises
    warns = ""      # the call that warns

    def __init__(self, run_name: str, logging_dir: Path):
        super().__init__()
        self.path = Path(logging_dir) / f"{run_name}.jsonl"

    @property
    def tracker(self):
        return self.path

    def start(self):
        self._write("start", {})

    def store_init_configuration(self, values):
        self._write("settings", values)

    def log(self, values, step=None, **kwargs):
        self._write("log", {"step": step, **values})

    def finish(self):
        self._write("finish", {})

    def _write(self, what, values):
        print("paper says", what)
        torch.rand(1), random.random(), np.random.rand()
        if what == self.warns:
            warnings.warn(f"no room for {len(values)} values", stacklevel=1)
        if what == self.fails:
            raise OSError(28, "No space left on device")
        with self.path.open("a") as file:
            file.write(json.dumps([what, values]) + "\n")


@pytest.fixture
def paper(monkeypatch):
    """Register the tracker, and return a function that reads what one kind of call wrote."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "paper", Paper)
    monkeypatch.setattr(Paper, "fails", "")

    def read(out: Path, what: str = "log"):
        lines = [json.loads(line) for line in (out / "paper.jsonl").read_text().splitlines()]
        return [values for kind, values in lines if kind == what]

    return read


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A real run without trackers: 8 steps, 4 lines, 3 pictures."""
    torch.manual_seed(0)
    model = zoo.create("dcgan", resolution=16, latent=8, generator_width=8, discriminator_width=8)
    return zoo.train(model, "emoji", out=tmp_path_factory.mktemp("real") / "run", **OPTIONS)


def begun(names, out, step=0, settings=None):
    out.mkdir(parents=True, exist_ok=True)
    return Trackers(names, Accelerator(cpu=True), out, settings or {}, step=step)


def shown(names, out, lines, step=0, settings=None):
    """Show lines as one part of a training does that starts at a step."""
    trackers = begun(names, out, step, settings)
    for line in lines:
        trackers.line(line)
    trackers.finish()


def made_up(first, last):
    return [{"step": step, "terms": {"generator.adversarial": step / 10}} for step in range(first, last + 1)]


# Names.


def test_an_unknown_tracker_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"No tracker 'tensorbord'\. Did you mean 'tensorboard'\? Possible: .*wandb"):
        check(["tensorbord"])


def test_a_tracker_that_is_not_installed_is_refused_with_the_command():
    have = {str(each) for each in get_available_trackers()}
    absent = sorted(set(LOGGER_TYPE_TO_CLASS) - have)
    for name in absent:
        package = r"'genzoo\[track\]'" if name in tracking.EXTRA else name
        with pytest.raises(ConfigError, match=f"'{name}' is not installed: pip install {package}"):
            check([name])
    assert absent or len(have) == len(LOGGER_TYPE_TO_CLASS)
    check(sorted(have))


def test_the_extra_brings_what_the_message_says():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["track"]
    assert sorted(each.split(">=")[0] for each in extra) == sorted(tracking.EXTRA)


def test_a_registered_tracker_is_as_good(paper):
    check(["paper"])


# What is shown.


def test_numbers_of_a_line():
    line = {
        "step": 3, "kimg": 0.1, "lr": nan, "terms": {"generator.adversarial": 0.5, "generator.r1": None, "x.y": inf},
        "augment": {"p": 0.25}, "skipped": 2, "faults": [{"step": 2, "action": "skipped"}], "closing": True,
    }  # fmt: skip
    assert numbers(line) == {"kimg": 0.1, "generator/adversarial": 0.5, "augment/p": 0.25, "skipped": 2}


def test_a_tracker_is_given_the_log_and_the_settings(paper, real, tmp_path, capsys):
    shown(["paper"], tmp_path, real.log, settings=real.settings)
    given = paper(tmp_path)
    assert [each.pop("step") for each in given] == [2, 4, 6, 8]
    assert given == [numbers(line) for line in real.log]
    assert given[0]["generator/adversarial"] == real.log[0]["terms"]["generator.adversarial"]
    (settings,) = paper(tmp_path, "settings")
    assert settings["recipe/lr"] == real.settings["recipe"]["lr"]
    assert settings["recipe/phases/0/name"] == real.settings["recipe"]["phases"][0]["name"]
    assert settings["recipe/betas"] == json.dumps(real.settings["recipe"]["betas"])
    assert all(isinstance(value, bool | int | float | str) for value in settings.values())
    told = capsys.readouterr()
    assert told.out == ""
    assert "paper says" in told.err


def test_without_names_and_in_other_processes_nothing_is_done(paper, tmp_path):
    for names, main in ((), True), (["paper"], False):
        trackers = Trackers(names, SimpleNamespace(is_main_process=main), tmp_path, {}, step=0)
        trackers.line({"step": 1, "terms": {}})
        trackers.picture(tmp_path / "none.png", 1)
        trackers.go_back(0)
        trackers.finish()
    assert not list(tmp_path.iterdir())


def test_the_training_is_the_same_with_trackers(paper, tiny, real, tmp_path):
    """Every tick of a real training goes to all trackers that are installed; the weights are equal bit for bit."""
    names = ["paper", *({"tensorboard"} & {str(each) for each in get_available_trackers()})]
    hook = threading.excepthook
    trackers = begun(names, tmp_path)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    model = tiny("dcgan")
    run = zoo.train(
        model, "emoji", out=tmp_path / "run", **OPTIONS,
        progress=lambda done, total, values: trackers.line(Run(tmp_path / "run").log[-1]),
    )  # fmt: skip
    trackers.finish()
    assert [each["step"] for each in paper(tmp_path)] == [2, 4, 6, 8]
    for name in ("00000004", "00000008"):
        for file in ("model.safetensors", "optimizer.safetensors"):
            assert (run.directory / "checkpoints" / name / file).read_bytes() == (
                real.directory / "checkpoints" / name / file
            ).read_bytes()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert threading.excepthook is hook


def test_trackers_draw_no_random_number(paper, tmp_path):
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    shown(["paper"], tmp_path, made_up(1, 3))
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected


# Breaks.


def test_a_resumed_training_shows_no_step_twice(paper, tmp_path):
    shown(["paper"], tmp_path, made_up(1, 5))
    shown(["paper"], tmp_path, made_up(3, 8), step=2)
    assert [each["step"] for each in paper(tmp_path)] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_training_that_goes_back_shows_no_step_twice(paper, tmp_path):
    trackers = begun(["paper"], tmp_path)
    for line in made_up(1, 5):
        trackers.line(line)
    trackers.go_back(2)
    for line in made_up(3, 7):
        trackers.line(line)
    trackers.finish()
    assert [each["step"] for each in paper(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("note", ["", "{", "[1]", '{"paper": {"id": 1}}', '{"paper": 3}'])
def test_a_damaged_note_begins_another_run(paper, tmp_path, note):
    (tmp_path / tracking.NOTE).write_text(note)
    shown(["paper"], tmp_path, made_up(1, 2))
    assert json.loads((tmp_path / tracking.NOTE).read_text())["paper"]["step"] == 2


# Failures.


@pytest.mark.parametrize(("method", "kept"), [("start", []), ("settings", []), ("log", []), ("finish", [1, 2, 3])])
def test_a_failing_tracker_costs_one_line(paper, monkeypatch, tmp_path, caplog, method, kept):
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "other", type("Other", (Paper,), {"name": "other"}))
    monkeypatch.setattr(Paper, "fails", method)
    monkeypatch.setattr(LOGGER_TYPE_TO_CLASS["other"], "fails", "", raising=False)
    with caplog.at_level(logging.WARNING, logger="zoo"):
        shown(["paper", "other"], tmp_path, made_up(1, 3))
    assert len(caplog.messages) == 1
    assert "tracker paper failed" in caplog.text
    assert "OSError: [Errno 28] No space left on device" in caplog.text
    if (tmp_path / "paper.jsonl").exists():
        assert [each["step"] for each in paper(tmp_path)] == kept
    other = [json.loads(line) for line in (tmp_path / "other.jsonl").read_text().splitlines()]
    assert [values["step"] for kind, values in other if kind == "log"] == [1, 2, 3]


def test_a_tracker_that_warns_is_heard_once(paper, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(Paper, "warns", "log")
    with caplog.at_level(logging.WARNING, logger="zoo"):
        shown(["paper"], tmp_path, made_up(1, 3))
    assert caplog.messages == ["The tracker paper: no room for 2 values; log.jsonl has everything."]
    assert [each["step"] for each in paper(tmp_path)] == [1, 2, 3]


# The real ones.

PART = """
import json, sys
from pathlib import Path
from accelerate import Accelerator
from zoo.training.tracking import Trackers, check
name, out, step, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
if size:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
check([name])
trackers = Trackers([name], Accelerator(cpu=True), out, {"seed": 0}, step=step)
for text in sys.stdin:
    line = json.loads(text)
    trackers.line(line)
    trackers.picture(out / "grid.png", line["step"])
trackers.finish()
"""


def part(name, out, lines, step=0, size=0):
    """Show lines, with a picture each, in a process of their own; return what it wrote to standard error."""
    environment = {
        **os.environ, "WANDB_MODE": "offline", "TRACKIO_DIR": str(out / "trackio"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", PART, name, str(out), str(step), str(size)], env=environment, cwd=out, check=False,
        input="\n".join(map(json.dumps, lines)), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


def two_parts(name, real, out):
    """Break off after step 6 and go on from the checkpoint of step 4."""
    (out / "grid.png").write_bytes(next((real.directory / "samples").glob("*.png")).read_bytes())
    part(name, out, real.log[:3])
    part(name, out, real.log[2:], step=4)


@pytest.mark.skipif(not find_spec("tensorboard"), reason="needs tensorboard")
def test_tensorboard_shows_the_log_of_a_resumed_run(real, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    two_parts("tensorboard", real, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    expected = {}
    for line in real.log:
        for name, value in numbers(line).items():
            expected.setdefault(name, []).append((line["step"], float(np.float32(value))))
    found = {name: [(each.step, each.value) for each in events.Scalars(name)] for name in events.Tags()["scalars"]}
    assert found == expected
    pictures = events.Images("samples")
    assert [each.step for each in pictures] == [2, 4, 6, 8]
    assert (pictures[0].width, pictures[0].height) == picture_size(tmp_path / "grid.png")


def picture_size(path):
    from PIL import Image

    with Image.open(path) as image:
        return image.size


@pytest.mark.skipif(not find_spec("tensorboard"), reason="needs tensorboard")
def test_tensorboard_without_room_costs_one_line(real, tmp_path):
    (tmp_path / "grid.png").write_bytes(next((real.directory / "samples").glob("*.png")).read_bytes())
    told = part("tensorboard", tmp_path, real.log, size=1500)
    assert len(told.strip().splitlines()) == 1, told
    assert "tracker tensorboard failed" in told


@pytest.mark.skipif(not find_spec("trackio"), reason="needs trackio")
def test_trackio_shows_the_log_of_a_resumed_run(real, tmp_path):
    import sqlite3

    two_parts("trackio", real, tmp_path)
    with sqlite3.connect(tmp_path / "trackio" / "genzoo.db") as base:
        rows = base.execute("select run_name, step, metrics from metrics order by id").fetchall()
        ((settings,),) = base.execute("select config from configs").fetchall()
    assert len({run for run, _, _ in rows}) == 1
    shown = [(step, json.loads(values)) for _, step, values in rows]
    assert [each for each in shown if "samples" not in each[1]] == [(line["step"], numbers(line)) for line in real.log]
    assert [step for step, values in shown if "samples" in values] == [2, 4, 6, 8]
    assert json.loads(settings)["seed"] == 0


@pytest.mark.skipif(not find_spec("wandb"), reason="needs wandb")
def test_wandb_goes_on_with_the_same_run(real, tmp_path):
    two_parts("wandb", real, tmp_path)
    parts = sorted((tmp_path / "wandb").glob("offline-run-*"))
    run = json.loads((tmp_path / tracking.NOTE).read_text())["wandb"]
    assert run["step"] == 8
    assert [each.name.rsplit("-", 1)[1] for each in parts] == [run["id"]] * 2
    pictures = sorted(int(path.name.split("_")[1]) for each in parts for path in each.rglob("samples_*.png"))
    assert pictures == [2, 4, 6, 8]
