"""The challenges of training: the harness that keeps what is measured, and what they measure by, in closed form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHALLENGES = Path(__file__).parent.parent / "benchmarks" / "challenges"
sys.path.append(str(CHALLENGES))

import harness

DYING = f"""
import os, signal, sys
sys.path.append({str(CHALLENGES)!r})
import harness

def measure(settings, seed, folder):
    half = folder / "half"
    if settings["dies"] and not half.exists():
        half.write_text("begun")
        os.kill(os.getpid(), signal.SIGKILL)
    with open(sys.argv[0] + ".log", "a") as log:
        print(settings["value"], seed, file=log)
    return {{"double": 2 * settings["value"] + seed, "resumed": half.exists()}}

arms = {{name: {{"value": 1 + i, "dies": name == "two"}} for i, name in enumerate(("one", "two", "three"))}}
chosen = harness.parser("test").parse_args()
harness.carry_out(harness.Challenge("dying", arms, measure, ("double",), seeds=2), chosen)
"""


@pytest.fixture
def dying(tmp_path):
    """Return a function that runs a challenge whose second arm is killed half way, the first time."""
    script = tmp_path / "dying.py"
    script.write_text(DYING)

    def run(*options):
        command = [sys.executable, str(script), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
        return subprocess.run([*command, *options], capture_output=True, text=True, cwd=CHALLENGES, timeout=120)

    return run


def test_a_killed_challenge_goes_on_and_measures_nothing_twice(dying, tmp_path):
    assert dying().returncode == -9
    kept = tmp_path / "out" / "dying.json"
    assert [(run["arm"], run["seed"]) for run in json.loads(kept.read_text())["runs"]] == [("one", 0)]
    assert dying().returncode == -9      # seed 1 of the same arm
    last = dying()
    assert last.returncode == 0
    runs = {(run["arm"], run["seed"]): run["results"] for run in json.loads(kept.read_text())["runs"]}
    assert runs == {
        (arm, seed): {"double": 2 * value + seed, "resumed": arm == "two"}
        for arm, value in (("one", 1), ("two", 2), ("three", 3)) for seed in (0, 1)
    }  # fmt: skip
    log = tmp_path / "dying.py.log"
    assert sorted(log.read_text().splitlines()) == [f"{value} {seed}" for value in (1, 2, 3) for seed in (0, 1)]
    assert not list((tmp_path / "work" / "dying").iterdir())
    assert "| two   | 2     | 4.5 (4 to 5) |" in last.stdout
    again = dying("--only", "one", "--only", "t*ee", "--seeds", "1")
    assert again.stdout.splitlines()[2:] == ["| one   | 1     | 2      |", "| three | 1     | 6      |"]
    assert len(log.read_text().splitlines()) == 6


def test_what_is_left_is_said_with_its_command(dying, tmp_path):
    stopped = dying("--only", "one", "--minutes", "-1")
    assert "2 of 2 are not measured yet" in stopped.stderr
    said = stopped.stderr.rpartition(": ")[2].split()
    assert said == ["python", str(tmp_path / "dying.py"), "--out", str(tmp_path / "out"), "--work",
                    str(tmp_path / "work"), "--only", "one"]  # fmt: skip
    assert "No arm named like 'four'; there are: one, two, three." in dying("--only", "four").stderr


def test_a_run_counts_for_its_settings_alone():
    runs = [{"arm": "a", "seed": 0, "settings": {"betas": [0.5, 0.9]}}]
    assert harness.find(runs, "a", 0, {"betas": (0.5, 0.9)}) == runs[0]
    assert harness.find(runs, "a", 0, {"betas": (0.5, 0.99)}) is None
    assert harness.find(runs, "a", 1, {"betas": (0.5, 0.9)}) is None
