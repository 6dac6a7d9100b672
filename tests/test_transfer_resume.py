"""What methods remember of the parent is in no checkpoint, and yet a killed run goes on as one that never was."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from faults.undisturbed import differences
from processes import PRELOADED, together

import zoo

METHODS = ("l2_sp:weight=0.5", "ewc:weight=0.5,samples=4", "cdc:images=3", "lora:rank=2")
OPTIONS = {"batch": 4, "kimg": 0.056, "tick_kimg": 0.004, "checkpoint_kimg": 0.016, "sample_kimg": 1.0}     # 14 steps
DATA = "emoji:smileys-emotion"


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.fixture(scope="module")
def parents(tmp_path_factory) -> dict[str, str]:
    from conftest import TINY

    found = {}
    for name in ("dcgan", "stylegan"):
        torch.manual_seed(0)
        model = zoo.create(name, **TINY[name])
        path = zoo.save(model.follow(model.recipe().averaged), tmp_path_factory.mktemp("parents") / name)
        found[name] = f"dir:{path}"
    return found


def tune(parent: str, out: Path, method: str, **options) -> None:
    torch.manual_seed(0)
    zoo.finetune(parent, DATA, out=out, method=method, resume=True, **{**OPTIONS, **options})


def die_at(kimg: float):
    def progress(done: float, total: float, values: object) -> None:
        if done >= kimg:
            raise Killed

    return progress


@pytest.mark.parametrize(("name", "method"), [
    *(("dcgan", method) for method in METHODS),
    *(pytest.param("stylegan", method, marks=pytest.mark.slow) for method in METHODS),
])  # fmt: skip
def test_a_run_that_goes_on_equals_an_undisturbed_one(parents, tmp_path, method, name):
    tune(parents[name], tmp_path / "whole", method)
    for kimg in (0.020, 0.036):      # between two checkpoints
        with pytest.raises(Killed):
            tune(parents[name], tmp_path / "parts", method, progress=die_at(kimg))
    tune(parents[name], tmp_path / "parts", method)
    assert differences(tmp_path / "parts", tmp_path / "whole") == []
    if method.startswith("lora"):
        for file in ("model.safetensors", "config.json", "manifest.json"):
            assert (tmp_path / "parts/delta" / file).read_bytes() == (tmp_path / "whole/delta" / file).read_bytes()


@pytest.mark.parametrize("method", ["cdc:images=3", "lora:rank=2"])
def test_checkpoints_and_models_hold_no_copy_of_the_parent(parents, tmp_path, method):
    tune(parents["dcgan"], tmp_path / "full", "full")
    tune(parents["dcgan"], tmp_path / "run", method)
    sizes = []
    for run in ("full", "run"):
        newest = max((tmp_path / run / "checkpoints").iterdir())
        sizes.append([sum(file.stat().st_size for file in newest.iterdir()),
                      (tmp_path / run / "model" / "model.safetensors").stat().st_size])  # fmt: skip
    assert sizes[1][1] == sizes[0][1]
    assert sizes[1][0] < 1.1 * sizes[0][0]


def test_a_run_does_not_go_on_from_another_parent(parents, tmp_path, tiny):
    model = zoo.load(parents["dcgan"])
    zoo.finetune(model, DATA, out=tmp_path / "run", method="l2_sp", **{**OPTIONS, "kimg": 0.016})
    with pytest.raises(zoo.ZooError, match=r"settings\.source=[0-9a-f]{16}, now it is [0-9a-f]{16}"):      # it moved
        zoo.finetune(model, DATA, out=tmp_path / "run", method="l2_sp", resume=True, **{**OPTIONS, "kimg": 0.016})


def kill_itself(parent: str, out: str, method: str) -> None:
    def progress(done: float, total: float, values: object) -> None:
        if done >= 0.024:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    tune(parent, Path(out), method, progress=progress)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_process_killed_by_the_system_is_made_up_for(parents, tmp_path, method):
    tune(parents["dcgan"], tmp_path / "whole", method)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=kill_itself, args=(parents["dcgan"], str(tmp_path / "parts"), method))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    tune(parents["dcgan"], tmp_path / "parts", method)
    assert differences(tmp_path / "parts", tmp_path / "whole") == []


def in_group(parent: str, out: str, method: str, kimg: float | None) -> float:
    with suppress(zoo.errors.Interrupted):
        tune(parent, Path(out), method, progress=None if kimg is None else die_at_all(kimg))
    return float(zoo.Run(Path(out)).log[-1]["kimg"])


def die_at_all(kimg: float):
    """SIGTERM for every process at the same tick, which the first alone hears of."""

    def progress(done: float, total: float, values: object) -> None:
        if done >= kimg:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_go_on_as_they_would_have(parents, tmp_path, method):
    together(in_group, 2, parents["dcgan"], str(tmp_path / "whole"), method, None)
    together(in_group, 2, parents["dcgan"], str(tmp_path / "parts"), method, 0.024)
    assert zoo.Run(tmp_path / "parts").log[-1]["kimg"] < 0.056
    together(in_group, 2, parents["dcgan"], str(tmp_path / "parts"), method, None)
    assert differences(tmp_path / "parts", tmp_path / "whole") == []
