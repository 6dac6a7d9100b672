"""One command in two real processes: one voice, one exit code, and no process left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from zoo.cli.options import without_processes
from zoo.errors import ConfigError, RunError
from zoo.launch import launch
from zoo.training.engine import engine

FAULTS = Path(__file__).parent / "faults"
PROC = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes through /proc")

TINY = ["--set", "resolution=16", "--set", "generator_width=4", "--set", "discriminator_width=4", "--set", "latent=8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for i in range(16):
        Image.new("RGB", (16, 16), (i * 15, 90, 90)).save(path / f"{i:02}.png")
    return path


def start(folder: Path, out: Path, kimg: str, *more: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [sys.executable, *launcher, "-m", "zoo", "train", "dcgan", str(folder), "--out", str(out), "--kimg", kimg]
    command += [*more, "--batch", "8", *TINY]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def begun(process: subprocess.Popen, out: Path) -> None:
    """Wait for the checkpoint that a training begins with, after which it steps."""
    deadline = time.monotonic() + 180
    while not (out / "checkpoints" / "00000000").exists() and process.poll() is None and time.monotonic() < deadline:
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


@PROC
@pytest.mark.parametrize("count", ["2", pytest.param("20", marks=pytest.mark.slow)])
def test_death_of_one_process_ends_the_run(count):
    """By our launcher and by torchrun, with one line that names the process and the signal, and nobody left."""
    longest = "3" if count == "2" else "20"
    command = [sys.executable, str(FAULTS / "rank_death.py"), "--count", count, "--longest", longest]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * int(count) + 60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count}/{count} ended" in done.stdout


@PROC
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signal_reaches_all_processes_and_they_save(number, folder, tmp_path):
    out = tmp_path / "run"
    process = start(folder, out, "1000", "--processes", "2")
    begun(process, out)
    ranks = children(process.pid)
    assert len(ranks) == json.loads((out / "run.json").read_text())["processes"] == 2
    process.send_signal(number)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert complaint.count("\n") == 1
    assert f"stopped by {number.name}" in complaint
    assert "--resume" in complaint
    assert gone(ranks)
    assert max(int(path.name) for path in (out / "checkpoints").iterdir() if path.name.isdigit()) > 0


@PROC
@pytest.mark.slow
def test_a_signal_to_one_process_alone_stops_all(folder, tmp_path):
    out = tmp_path / "run"
    process = start(folder, out, "1000", "--processes", "2")
    begun(process, out)
    ranks = children(process.pid)
    os.kill(ranks[1], signal.SIGTERM)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 143
    assert complaint.count("\n") == 1
    assert gone(ranks)


@PROC
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
def test_death_of_the_launcher_leaves_nobody_behind(folder, tmp_path):
    out = tmp_path / "run"
    process = start(folder, out, "1000", "--processes", "2")
    begun(process, out)
    ranks = children(process.pid)
    process.kill()
    process.communicate(timeout=60)
    assert gone(ranks)


# Launchers of other kinds.

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node")
ACCELERATE = ("-m", "accelerate.commands.launch", "--num_machines", "1", "--multi_gpu", "--num_processes")


def ended(process: subprocess.Popen) -> str:
    _, complaint = process.communicate(timeout=300)
    assert process.returncode == 0, complaint
    return complaint


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [(*TORCHRUN, "2"), (*ACCELERATE, "2", "--main_process_port", "0")],
)
def test_processes_of_another_launcher_find_each_other(folder, tmp_path, launcher):
    ended(start(folder, tmp_path / "run", "0.032", launcher=launcher))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    assert load_file(tmp_path / "run" / "model" / "model.safetensors")


@pytest.mark.slow
def test_two_nodes_train_together(folder, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-id", "zoo", "--rdzv-endpoint", f"localhost:{port}")
    launcher = (*TORCHRUN, "1", *meeting)
    nodes = [start(folder, tmp_path / "run", "0.032", launcher=launcher) for _ in range(2)]
    for node in nodes:
        ended(node)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_a_mistake_is_told_once_under_another_launcher(folder, tmp_path):
    process = start(folder, tmp_path / "run", "0.032", launcher=(*TORCHRUN, "3"))
    _, complaint = process.communicate(timeout=300)
    assert process.returncode != 0
    lines = [line for line in complaint.splitlines() if line.startswith("zoo: ")]
    assert len(lines) == 1
    assert "multiple of 3" in lines[0]


def test_one_process_of_several_is_refused(monkeypatch):
    """What `accelerate launch --cpu --num_processes 2` tells the single process that it starts."""
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(RunError, match="--multi_gpu"):
        engine(None)
    monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND")
    monkeypatch.setenv("ZOO_PROCESSES", "3")
    with pytest.raises(RunError, match="3 processes were asked for but 1"):
        engine(None)


def test_impossible_number_of_processes():
    with pytest.raises(ConfigError, match="--processes 0"):
        launch(["list"], 0)


@pytest.mark.parametrize(
    "given",
    [["train", "x", "--processes", "2", "--kimg", "1"], ["train", "x", "--processes=2", "--kimg", "1"]],
)
def test_children_get_the_command_without_processes(given):
    assert without_processes(given) == ["train", "x", "--kimg", "1"]
