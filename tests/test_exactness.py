"""A training that was stopped, killed or made longer ends as one that never was, bit for bit."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faults.kinds import ADA, BATCH, DCGAN, STYLEGAN, VAE, Break, Kind, train
from faults.undisturbed import differences, lines
from PIL import Image
from processes import together

import zoo
from zoo.data import open_images
from zoo.parts import with_part
from zoo.recipe import Terms
from zoo.regularisers import LeCam, follow_logits, remember_logits

HALF, WHOLE = 7, 14      # steps; log lines are due at 3, 6, ..., checkpoints at 4, 8, ..., a grid at 11
GRID = f"000000.{HALF * BATCH:03}.png"      # that half a training closes with
CLASSES = 2
TWO = {"augment": ("ada",), "ada_kimg": 0.05}

CONSTANT = {"anneal": "constant"}      # else the learning rate depends on how long the training will be
QUICK = (
    Kind("dcgan: batch norm, ADA, accumulated", "dcgan", DCGAN, {"settings": ADA, "accumulate": 2}),
    Kind("stylegan: path length, R1, classes, 2 workers", "stylegan", {**STYLEGAN, "num_classes": CLASSES},
         {"settings": {"augment": ("color", "translation"), "mirror": True}, "workers": 2}),
    Kind("vae", "vae", {**VAE, "warmup": 0.0}, {"settings": CONSTANT}),
    Kind("dcgan in two processes", "dcgan", DCGAN, {"settings": ADA}, processes=2),
)  # fmt: skip
FULL = tuple(
    Kind(f"{name}, {settings.get('augment', 'plain')}, accumulate {accumulate}, {workers} workers, "
         f"{processes} processes", name, config,
         {"settings": {**settings, "anneal": "constant"}, "accumulate": accumulate, "workers": workers}, processes)
    for name, config in (("dcgan", {**DCGAN, "num_classes": CLASSES}), ("stylegan", STYLEGAN),
                         ("vae", {**VAE, "warmup": 0.0}))
    for settings in ({}, {"augment": ("color", "translation", "cutout")}, ADA)
    for accumulate, workers in ((1, 2), (2, 0))
    for processes in (1, 2)
    if not settings or name != "vae"      # which has no critic
)  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of 20 images in two classes: five steps are an epoch, so no training ends with one."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = torch.Generator().manual_seed(0)
    for number in range(20):
        pixels = torch.randint(256, (16, 16, 3), dtype=torch.uint8, generator=noise)
        path = folder / str(number % CLASSES) / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.numpy()).save(path)
    return folder


def work(kind: Kind, out: Path, steps: int, data: Path) -> None:
    train(kind, out, steps=steps, data=data)


def in_processes(kind: Kind, out: Path, steps: int, data: Path) -> None:
    """Train in processes of its own if the kind wants several, else in this one."""
    if kind.processes > 1:
        together(work, kind.processes, kind, out, steps, data)
    else:
        work(kind, out, steps, data)


def twice_as_long(kind: Kind, folder: Path, data: Path) -> list[str]:
    """Return in what a training of half the length that is made longer differs from one of the whole."""
    in_processes(kind, folder / "whole", WHOLE, data)
    in_processes(kind, folder / "parts", HALF, data)
    assert lines(folder / "parts")[-1]["step"] == HALF      # a line of its own, which must go again
    assert lines(folder / "parts")[-1]["closing"]
    in_processes(kind, folder / "parts", WHOLE, data)
    return differences(folder / "parts", folder / "whole", also=[GRID])


@pytest.mark.parametrize("kind", QUICK, ids=lambda kind: kind.name)
def test_a_run_made_longer_is_one_of_that_length(kind, pictures, tmp_path):
    assert twice_as_long(kind, tmp_path, pictures) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", FULL, ids=lambda kind: kind.name)
def test_every_kind_of_run_made_longer_is_one_of_that_length(kind, pictures, tmp_path):
    assert twice_as_long(kind, tmp_path, pictures) == []


def test_what_a_training_remembers_for_itself_goes_on(pictures, tmp_path):
    """LeCam's running means of the logits are a buffer that is not among the weights."""

    def lecam(out: Path, steps: int) -> None:
        torch.manual_seed(0)
        model = zoo.create("dcgan", **DCGAN)
        remember_logits(model)
        recipe = with_part(model.recipe(), LeCam(), after=follow_logits)
        zoo.train(model, pictures, recipe=recipe, batch=BATCH, kimg=steps * BATCH / 1000, out=out, resume=True)

    lecam(tmp_path / "whole", WHOLE)
    lecam(tmp_path / "parts", HALF)
    lecam(tmp_path / "parts", WHOLE)
    assert differences(tmp_path / "parts", tmp_path / "whole", also=[GRID]) == []


def test_images_that_are_gone_end_a_training_with_a_checkpoint(pictures, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    images = open_images(folder, resolution=16, channels=3, memory=0, cache=None)

    def gone(done: float, total: float, values: object) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    model = zoo.create("dcgan", **DCGAN)
    with pytest.raises(zoo.errors.DataError, match="no image"):
        zoo.train(model, images, batch=BATCH, kimg=1, out=tmp_path / "run", tick_kimg=0.012, progress=gone)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name > "00000002"]


def test_a_finished_run_that_is_resumed_stays_as_it_is(pictures, tmp_path):
    kind = replace(QUICK[0], options={"settings": TWO})
    train(kind, tmp_path / "run", steps=HALF, data=pictures)
    shutil.copytree(tmp_path / "run", tmp_path / "before")
    train(kind, tmp_path / "run", steps=HALF, data=pictures)
    assert differences(tmp_path / "run", tmp_path / "before") == []
    # Every part of the comparison can fail.
    for name, byte in (("model/model.safetensors", -1), ("samples/000000.png", -20), ("log.jsonl", 9),
                       ("checkpoints/00000007/optimizer.safetensors", -1)):  # fmt: skip
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(tmp_path / "before", tmp_path / "run")
        content = bytearray((tmp_path / "run" / name).read_bytes())
        content[byte] ^= 1
        (tmp_path / "run" / name).write_bytes(content)
        found = differences(tmp_path / "run", tmp_path / "before")
        assert len(found) == 1, name
        assert Path(name).name in found[0]


def test_more_processes_and_more_micro_batches_can_go_on_with_a_run(pictures, tmp_path):
    quarters, whole, halves = (replace(QUICK[0], options={"accumulate": parts}) for parts in (4, 1, 2))
    train(quarters, tmp_path / "more", steps=1, data=pictures)
    together(work, 2, whole, tmp_path / "more", 2, pictures)      # two images each: they do not divide by four
    assert zoo.Run(tmp_path / "more").settings["accumulate"] == 1
    train(whole, tmp_path / "finer", steps=1, data=pictures)
    train(halves, tmp_path / "finer", steps=2, data=pictures)
    assert zoo.Run(tmp_path / "finer").settings["accumulate"] == 2


def test_nothing_is_written_once_a_training_has_failed(pictures, tmp_path):
    def fail(model: torch.nn.Module, terms: Terms) -> Terms:
        raise LookupError("of the loss")

    kind = replace(QUICK[0], breaks=Break("discriminator", (0,), fail))
    with pytest.raises(LookupError):
        train(kind, tmp_path / "run", steps=2, data=pictures)      # the first checkpoint is being written
    for thread in threading.enumerate():
        if thread.name.startswith("checkpoint"):
            thread.join(2)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    assert not (tmp_path / "run" / "run.json").exists()


# Kill -9. The same at length: python tests/faults/kill_resume.py.


def faults(name: str, *options: str) -> str:
    """Run a script that makes faults and return the last line that it prints."""
    path = Path(__file__).parent / "faults" / f"{name}.py"
    done = subprocess.run([sys.executable, path, *options], capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_20_killed_trainings_end_as_if_they_had_not_been():
    assert faults("kill_resume", "--count", "20", "--only", "dcgan", "--no-curves") == "20/20 bit-exact"      # quick


@pytest.mark.slow
def test_200_killed_trainings_end_as_if_they_had_not_been():
    assert faults("kill_resume", "--count", "200") == "200/200 bit-exact"
