"""SIGTERM, SIGHUP and Ctrl-C: the step ends, a checkpoint is written, and the resumed run is as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faults.kinds import DCGAN, STYLEGAN, Break, Kind, train
from faults.undisturbed import differences
from processes import together

import zoo
from zoo.recipe import Terms
from zoo.training.signals import Stop

STEPS = 8
KIND = Kind("stylegan", "stylegan", STYLEGAN)


def asked(number: int, step: int, *, times: int = 1, rank: int | None = None) -> Break:
    """Return a break that leaves the loss as it is, but sends this process a signal while it is computed."""
    sent: list[int] = []

    def how(model: torch.nn.Module, terms: Terms) -> Terms:
        while len(sent) < times:
            sent.append(number)
            os.kill(os.getpid(), number)
        return terms

    return Break("discriminator", (step,), how, rank=rank)


def stopped(kind: Kind, out: Path, number: int, step: int, rank: int | None = None) -> zoo.errors.Interrupted | None:
    """Train until a signal comes in a step (from 0); return what ended the training."""
    try:
        train(replace(kind, breaks=asked(number, step, rank=rank)), out, steps=STEPS)
    except zoo.errors.Interrupted as error:
        return error
    return None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(replace(KIND, breaks=asked(0, -1)), out, steps=STEPS)
    return out


# The training ends with the step of the signal: nothing is due after the first two, a log line after the third, a
# checkpoint after the fourth.
@pytest.mark.parametrize(
    ("number", "step", "code"),
    [(signal.SIGTERM, 0, 143), (signal.SIGHUP, 1, 129), (signal.SIGINT, 2, 130), (signal.SIGTERM, 3, 143)],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(undisturbed, tmp_path, number, step, code):
    before = signal.getsignal(number)
    error = stopped(KIND, tmp_path / "run", number, step)
    assert error is not None
    assert error.code == code
    saved = (step + 1) * 4 / 1000
    assert str(error) == (f"stopped by {signal.Signals(number).name} at {saved:g} of 0.032 kimg, saved at {saved:g}: "
                          "go on with --resume.")  # fmt: skip
    assert signal.getsignal(number) is before
    assert (tmp_path / "run" / "checkpoints" / f"{step + 1:08}").is_dir()
    assert not (tmp_path / "run" / "model").exists()
    train(replace(KIND, breaks=asked(0, -1)), tmp_path / "run", steps=STEPS)
    assert differences(tmp_path / "run", undisturbed) == []


def test_a_signal_in_the_last_step_lets_the_training_end(undisturbed, tmp_path):
    assert stopped(KIND, tmp_path / "run", signal.SIGTERM, STEPS - 1) is None
    assert differences(tmp_path / "run", undisturbed) == []


def work(kind: Kind, out: Path, rank: int | None) -> int:
    error = stopped(kind, out, signal.SIGTERM, 1, rank)
    return 0 if error is None else error.code


def test_all_processes_stop_where_one_was_asked_to(tmp_path):
    kind = Kind("dcgan", "dcgan", DCGAN, processes=2)
    assert together(work, 2, kind, tmp_path / "run", 1) == [143, 143]
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())] == ["00000000", "00000002"]
    for out in ("run", "undisturbed"):      # a rank that there is not hears nothing
        assert together(work, 2, kind, tmp_path / out, 2) == [0, 0]
    assert differences(tmp_path / "run", tmp_path / "undisturbed") == []


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_ends_at_once_and_a_second_sigterm_does_not(tmp_path):
    twice = replace(KIND, breaks=asked(signal.SIGINT, 1, times=2))
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        try:
            train(twice, tmp_path / "run", steps=STEPS)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert not (tmp_path / "run" / "model").exists()
    with Stop() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
    assert stop.number == signal.SIGTERM


def test_a_training_in_a_thread_hears_nothing_and_ends(undisturbed, tmp_path):
    quiet = replace(KIND, breaks=asked(0, -1))
    thread = threading.Thread(target=train, args=(quiet, tmp_path / "run"), kwargs={"steps": STEPS})
    thread.start()
    thread.join()
    assert differences(tmp_path / "run", undisturbed) == []


def test_a_second_training_in_the_folder_is_refused_and_the_first_goes_on(undisturbed, tmp_path):
    refused: list[str] = []
    quiet = replace(KIND, breaks=asked(0, -1))

    def another(done: float, total: float, values: object) -> None:
        # One process has one global random state, which two trainings would else share.
        with torch.random.fork_rng(), pytest.raises(zoo.ZooError) as error:
            train(quiet, tmp_path / "run", steps=STEPS)
        refused.append(str(error.value))

    train(quiet, tmp_path / "run", steps=STEPS, progress=another)
    assert refused == [f"{tmp_path / 'run'} is being trained by process {os.getpid()}: choose another."] * 4
    assert differences(tmp_path / "run", undisturbed) == []


# Real commands, stopped wherever they are. The same at length: python tests/faults/sigterm.py.


def test_ctrl_c_while_the_interpreter_ends_leaves_no_traceback():
    code = (
        "import atexit, sys, time\nfrom zoo.cli import main\nsys.argv = ['zoo', '--version']\n"
        "atexit.register(lambda: (print('ending', flush=True), time.sleep(60)))\nsys.exit(main())"
    )
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert command.stdout.readline().startswith("zoo ")
    assert command.stdout.readline() == "ending\n"
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=30)
    assert (said, command.returncode) == ("", -signal.SIGINT)


def faults(name: str, *options: str) -> str:
    """Run a script that makes faults and return the last line that it prints."""
    path = Path(__file__).parent / "faults" / f"{name}.py"
    done = subprocess.run([sys.executable, path, *options], capture_output=True, text=True, timeout=7200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes through /proc")
def test_50_commands_that_are_stopped_end_soon_and_go_on():
    assert faults("sigterm", "--count", "50") == "50/50 under 30 s"
