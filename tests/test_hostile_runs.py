"""Run directories that were damaged or made up: one line that says so, and what can be kept is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from zoo.cli.progress import Progress
from zoo.errors import ConfigError, RunError
from zoo.recipe import Terms
from zoo.training.checkpoints import STATE, TENSORS, steps
from zoo.training.manifest import Manifest

TINY = {"resolution": 16, "latent": 8, "generator_width": 8, "discriminator_width": 8}
pytestmark = pytest.mark.usefixtures("curves")      # which are drawn of damaged logs, too
MOMENT = "discriminator/{}/discriminator.blocks.0.conv.weight"


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(8):
        Image.new("RGB", (16, 16), (index * 30, 90, 255 - index * 30)).save(folder / f"{index}.png")
    return folder


def train(images: Path, out: Path, kimg: float, **options: Any) -> zoo.Run:
    torch.manual_seed(0)
    return zoo.train(zoo.create("dcgan", **TINY), images, kimg=kimg, batch=4, out=out, **options)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train(images, out, 0.008)
    return out


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def rewritten(run: Path, name: str, change: Callable[[Any], object]) -> None:
    """Change a file of every checkpoint and have its manifest agree, as whoever can write a file can."""
    for folder in steps(run / "checkpoints"):
        path = folder / name
        if name == STATE:
            content = json.loads(path.read_text())
            change(content)
            path.write_text(json.dumps(content))
        else:
            tensors = {key: value.clone() for key, value in load_file(path).items()}
            change(tensors)
            save_file(tensors, path)
        digests = {each: hashlib.sha256((folder / each).read_bytes()).hexdigest() for each in (*TENSORS, STATE)}
        said = json.loads((folder / "manifest.json").read_text())
        about = {key: value for key, value in said.items() if key not in ("step", "files", "sha256")}
        (folder / "manifest.json").write_bytes(Manifest.of(folder, said["step"], digests, about).text())


def putting(name: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update({name: value})


@pytest.mark.parametrize("name", ["x", "a/b", "", "//", "-1/rng/torch", "9/rng/torch"])
def test_odd_names_of_processes_are_refused(images, run, name):
    rewritten(run, "ranks.safetensors", putting(name, torch.zeros(1)))
    with pytest.raises(RunError, match="checkpoint"):
        train(images, run, 0.016, resume=True)


@pytest.mark.parametrize(
    "value",
    [torch.zeros(0), torch.zeros(()), torch.zeros(2, 2), torch.zeros(2), torch.tensor([1.0, float("nan")]),
     torch.tensor([1.0, float("inf")]), torch.tensor([1.0, -1.0]), torch.tensor([1.0, 1e30])],
)  # fmt: skip
def test_means_that_are_none_are_refused(images, run, value: Tensor):
    rewritten(run, "ranks.safetensors", putting("0/meter/x", value))
    with pytest.raises(RunError, match="does not fit"):
        train(images, run, 0.016, resume=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("numpy", torch.zeros(0)), ("numpy", torch.zeros(3)), ("python_gauss", torch.zeros(1, dtype=torch.complex64)),
     ("numpy_gauss", torch.full((3,), 1e300, dtype=torch.float64))],
)  # fmt: skip
def test_random_states_that_are_none_are_refused(images, run, name, value: Tensor):
    rewritten(run, "ranks.safetensors", putting(f"0/rng/{name}", value))
    with pytest.raises(RunError, match="checkpoint"):
        train(images, run, 0.016, resume=True)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("step", torch.zeros(0)), ("step", torch.zeros(2)), ("step", torch.tensor(-5.0)), ("step", torch.tensor(1)),
     ("step", torch.tensor(torch.nan)), ("exp_avg", torch.zeros(1)), ("exp_avg_sq", torch.zeros(())),
     ("exp_avg_sq", torch.zeros(1))],
)  # fmt: skip
def test_moments_of_another_kind_are_refused(images, run, kind, value: Tensor):
    rewritten(run, "optimizer.safetensors", putting(MOMENT.format(kind), value))
    with pytest.raises(zoo.ZooError, match="incomplete or of another shape"):
        train(images, run, 0.016, resume=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seconds", 10**400), ("seconds", float("nan")), ("seconds", float("inf")), ("accumulate", float("inf")),
     ("scalers", None), ("scalers", [])],
)  # fmt: skip
def test_states_that_are_none_are_refused(images, run, name, value):
    rewritten(run, STATE, putting(name, value))
    with pytest.raises(RunError, match="does not fit"):
        train(images, run, 0.016, resume=True)


@pytest.mark.parametrize("value", [-1, 10**400, float("inf"), float("nan"), None, "x"])
def test_counts_of_faults_that_are_none_are_refused(images, run, value):
    rewritten(run, STATE, lambda state: state["faults"].update(rollbacks=value))
    with pytest.raises(RunError, match="checkpoint"):
        train(images, run, 0.016, resume=True)


@pytest.mark.parametrize(
    "line",
    ["", "garbage", "[]", "3", "{}", '{"step": 1, "kimg": 0.004}', '{"step": 1, "kimg": 0.004, "terms": null}',
     '{"step": 1, "kimg": 0.004, "terms": {"x": 1}}', '{"step": 1, "kimg": 0.004, "terms": {}, "faults": 3}',
     '{"step": 1, "kimg": 0.004, "terms": {}, "faults": [3]}', '{"step": 1, "terms": {"x.y": 1}}', "[" * 100_000],
    ids=lambda line: line[:60],
)  # fmt: skip
def test_a_damaged_log_ends_no_training(images, run, line):
    (run / "log.jsonl").write_text(f"{line}\n")
    done = train(images, run, 0.016, resume=True)
    assert done.log[-1]["step"] == 4
    assert done.model.sample(1).shape == (1, 3, 16, 16)


def test_a_log_that_is_damaged_while_it_grows_ends_no_training(images, tmp_path):
    def damage(*told: object) -> None:
        (tmp_path / "run" / "log.jsonl").write_bytes(b'{"step": 1, "kimg": 0.0\xff\n')

    done = train(images, tmp_path / "run", 0.016, tick_kimg=0.004, sample_kimg=0.004, progress=damage)
    assert done.model.sample(1).shape == (1, 3, 16, 16)


def test_a_log_that_is_no_file_is_named(images, run):
    (run / "log.jsonl").unlink()
    (run / "log.jsonl").mkdir()
    with pytest.raises(RunError, match=r"log.jsonl is no regular file"):
        train(images, run, 0.016, resume=True)


def test_curves_that_cannot_be_written_cost_no_model(images, tmp_path):
    (tmp_path / "run" / "curves.png").mkdir(parents=True)
    assert train(images, tmp_path / "run", 0.008).model.sample(1).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("name", ["tick_kimg", "sample_kimg", "checkpoint_kimg"])
def test_nothing_happens_more_often_than_an_image(images, tmp_path, name):
    with pytest.raises(ConfigError, match=name):
        train(images, tmp_path / "run", 0.008, **{name: 1e-320})


# Recipes: what a stranger's may get wrong, of phases that else are dcgan's.


def with_phase(images: Path, out: Path, **changed: Any) -> zoo.Run:
    model = zoo.create("dcgan", **TINY)
    recipe = model.recipe()
    phases = (replace(recipe.phases[0], **changed), *recipe.phases[1:])
    return zoo.train(model, images, kimg=0.008, batch=4, out=out, recipe=replace(recipe, phases=phases))


@pytest.mark.parametrize(
    ("returned", "said"),
    [(lambda total: None, "returned NoneType"), (lambda total: total, "returned Tensor"),
     (lambda total: Terms({}), "returned no term"), (lambda total: Terms({"a": 3.0}), "is float"),
     (lambda total: Terms({"a": total.expand(3)}), r"shape \[3\]"),
     (lambda total: Terms({"a": total}, {"b": 1}), "is int"),
     (lambda total: Terms({"a": total.detach()}), "depends on no weight")],
)  # fmt: skip
def test_a_loss_that_returns_something_else_is_named(images, tmp_path, returned, said):
    loss = zoo.create("dcgan", **TINY).recipe().phases[0].loss
    with pytest.raises(ConfigError, match=rf"discriminator.*{said}"):
        with_phase(images, tmp_path / "run", loss=lambda model, batch: returned(loss(model, batch).total()))
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("every", 0), ("every", -1), ("every", 1.5), ("rate", float("nan")), ("rate", -1.0), ("loss", None), ("name", ""),
     ("trains", ["discriminator"]), ("trains", "discriminator"), ("trains", ("averages",)), ("trains", ())],
)  # fmt: skip
def test_a_phase_that_cannot_be_played_is_named(images, tmp_path, field, value):
    with pytest.raises(ConfigError, match=r"^(Phase 'discriminator'|A phase's name)"):
        with_phase(images, tmp_path / "run", **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("phases", ()), ("phases", (3,)), ("averaged", ("x",)), ("averaged", "generator"), ("critics", ("x",)),
     ("fresh", ("x",)), ("batch", 0), ("lr", float("nan")), ("lr", -1.0), ("betas", (2, 3)), ("anneal", "x"),
     ("ema_kimg", 0.0), ("clip_norm", -1.0)],
)  # fmt: skip
def test_a_recipe_with_impossible_values_is_refused(images, tmp_path, field, value):
    model = zoo.create("dcgan", **TINY)
    with pytest.raises(ConfigError, match=field):
        zoo.train(model, images, kimg=0.008, out=tmp_path / "run", recipe=replace(model.recipe(), **{field: value}))


def test_a_training_outlives_those_who_watch_it(monkeypatch):
    reads, writes = os.pipe()
    os.close(reads)
    closed = open(writes, "w")  # noqa: SIM115 -- closing it fails, as what was printed cannot be written
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", closed)
        progress = Progress("train")
        progress(1, 2, {"speed": 1.0})
        progress(2, 2, {"speed": 1.0})
    with pytest.raises(BrokenPipeError):
        closed.close()


@pytest.mark.filterwarnings("error")
def test_a_second_training_in_one_folder_is_told_once_who_is_there(images, tmp_path):
    told: list[str] = []

    def again(*said: object) -> None:
        with pytest.raises(RunError) as caught:
            train(images, tmp_path / "run", 0.008, resume=True)
        told.append(str(caught.value))

    train(images, tmp_path / "run", 0.008, tick_kimg=0.008, progress=again)
    assert told == [f"{tmp_path / 'run'} is being trained by process {os.getpid()}: choose another."]


def test_a_lock_that_cannot_be_written_to_keeps_nobody_out(images, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to("/dev/full")
    assert train(images, tmp_path / "run", 0.004).log[-1]["step"] == 1


@pytest.mark.parametrize("note", ["[" * 100_000, '{"x": {"id": 1, "step": 1e400}}', "{"], ids=["deep", "big", "half"])
def test_a_damaged_note_of_trackers_begins_others(images, run, note):
    (run / "tracking.json").write_text(note)
    assert train(images, run, 0.012, resume=True).log[-1]["step"] == 3
