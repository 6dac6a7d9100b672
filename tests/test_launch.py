"""One command in two real processes: one voice, one exit code, and no process left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from zoo.cli.options import without_processes
from zoo.errors import ConfigError
from zoo.launch import launch

TINY = ["--set", "resolution=16", "--set", "generator_width=4", "--set", "discriminator_width=4", "--set", "latent=8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for i in range(16):
        Image.new("RGB", (16, 16), (i * 15, 90, 90)).save(path / f"{i:02}.png")
    return path


def start(folder: Path, out: Path, kimg: str, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "zoo", "train", "dcgan", str(folder), "--out", str(out), "--kimg", kimg, *more]
    command += ["--batch", "8", *TINY]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def begun(process: subprocess.Popen, out: Path) -> None:
    deadline = time.monotonic() + 180
    while not (out / "log.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert process.poll() is None, process.communicate()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.2)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_mistake_is_told_once(folder, tmp_path):
    out = tmp_path / "taken"
    out.mkdir()
    (out / "run.json").write_text("{}")                   # each process refuses
    process = start(folder, out, "0.032", "--processes=2")
    printed, complaint = process.communicate(timeout=300)
    assert process.returncode == 2
    assert printed == ""
    assert complaint.count("\n") == 1
    assert "--resume" in complaint


@pytest.mark.slow
def test_two_processes_speak_with_one_voice(folder, tmp_path):
    out = tmp_path / "two"
    process = start(folder, out, "0.032", "--processes", "2")
    printed, complaint = process.communicate(timeout=300)
    assert (process.returncode, complaint) == (0, "")
    assert printed.count("0.032/0.032 kimg") == 1
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    assert load_file(out / "model" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes through /proc")
def test_death_of_one_process_ends_the_run(folder, tmp_path):
    out = tmp_path / "run"
    process = start(folder, out, "1000", "--processes", "2")
    begun(process, out)
    ranks = children(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 1
    assert complaint.count("\n") == 1
    assert "Traceback" not in complaint
    assert gone(ranks)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes through /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signal_reaches_all_processes(number, folder, tmp_path):
    out = tmp_path / "run"
    process = start(folder, out, "1000", "--processes", "2")
    begun(process, out)
    ranks = children(process.pid)
    assert len(ranks) == json.loads((out / "run.json").read_text())["processes"] == 2
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert complaint.count("\n") == 1
    assert "Traceback" not in complaint
    assert gone(ranks)


def test_impossible_number_of_processes():
    with pytest.raises(ConfigError, match="--processes 0"):
        launch(["list"], 0)


@pytest.mark.parametrize(
    "given",
    [["train", "x", "--processes", "2", "--kimg", "1"], ["train", "x", "--processes=2", "--kimg", "1"]],
)
def test_children_get_the_command_without_processes(given):
    assert without_processes(given) == ["train", "x", "--kimg", "1"]
