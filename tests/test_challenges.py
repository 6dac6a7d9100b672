"""The challenges of training: the harness that keeps what is measured, and what they measure by, in closed form."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "benchmarks" / "challenges"))

import digits
import harness
import mixtures
import points
import stability
import stacked_mnist

from zoo.errors import DataError
from zoo.noise import Noise

CHALLENGES = Path(harness.__file__).parent
ARMS = {name: {"value": 1 + i, "dies": name == "two"} for i, name in enumerate(("one", "two", "three"))}
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

harness.carry_out(harness.Challenge("dying", {ARMS}, measure, ("double",), 1), harness.parser("test").parse_args())
"""


def doubled(settings, seed, folder):
    return {"double": 2 * settings["value"] + seed}


@pytest.fixture
def carried_out(tmp_path, monkeypatch):
    """Return a function that carries out a challenge of three arms, with options, in a folder of the test's."""

    def carry_out(*options):
        given = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), *options]
        monkeypatch.setattr(sys, "argv", ["doubling.py", *given])
        chosen = harness.parser("test").parse_args()
        return harness.carry_out(harness.Challenge("doubling", ARMS, doubled, ("double",), 2), chosen)

    return carry_out


def carried_out_by(*command):
    """Run a script in a process forked from this one, which has imported what it needs; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.argv = list(command)
            runpy.run_path(command[0], run_name="__main__")
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_killed_challenge_goes_on_and_measures_nothing_twice(tmp_path, capfd):
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    command = [str(script), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    (killed, first), (whole, second) = ((carried_out_by(*command), capfd.readouterr().err) for _ in range(2))
    assert (killed, whole) == (-9, 0)
    assert first.startswith("one, seed 0 ...")
    assert "one, seed 0 ..." not in second
    runs = {(run["arm"], run["seed"]): run["results"] for run in harness.known(tmp_path / "out" / "dying.json")}
    assert runs == {(name, 0): {"double": 2 * arm["value"], "resumed": name == "two"} for name, arm in ARMS.items()}
    assert (tmp_path / "dying.py.log").read_text() == "1 0\n2 0\n3 0\n"
    assert not list((tmp_path / "work" / "dying").iterdir())


def test_what_is_left_is_said_with_its_command(carried_out, capsys, tmp_path):
    assert carried_out("--only", "o", "--minutes", "-1") == []
    said = capsys.readouterr().err
    assert said.startswith("4 of 4 are not measured yet; this goes on with them: ")
    places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert said.rpartition(": ")[2].split() == ["python", "doubling.py", *places, "--only", "o"]


def test_seeds_come_in_turn_and_the_table_shows_their_range(carried_out, capsys):
    runs = carried_out("--only", "one", "--only", "t*o")
    assert [(run["arm"], run["seed"]) for run in runs] == [("one", 0), ("two", 0), ("one", 1), ("two", 1)]
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows == ["| one | 2     | 2.5 (2 to 3) |", "| two | 2     | 4.5 (4 to 5) |"]
    assert len(carried_out("--table")) == 4      # measures nothing
    assert "2 of 6 are not measured yet" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="No arm named like 'four'; there are: one, two, three"):
        carried_out("--only", "four")


def test_a_run_counts_for_its_settings_alone():
    runs = [{"arm": "a", "seed": 0, "settings": {"betas": [0.5, 0.9]}}]
    assert harness.find(runs, "a", 0, {"betas": (0.5, 0.9)}) == runs[0]
    assert harness.find(runs, "a", 0, {"betas": (0.5, 0.99)}) is None
    assert harness.find(runs, "a", 1, {"betas": (0.5, 0.9)}) is None


def test_what_is_not_finite_is_kept_as_none(tmp_path):
    challenge = harness.Challenge("odd", {"a": {}}, lambda *_: {"x": float("nan"), "y": [1.5, float("inf")]}, ("x",), 1)
    chosen = harness.parser("test").parse_args(["--out", str(tmp_path), "--work", str(tmp_path / "work")])
    harness.carry_out(challenge, chosen)
    document = json.loads((tmp_path / "odd.json").read_text())
    assert document["runs"][0]["results"] == {"x": None, "y": [1.5, None]}
    assert document["summary"] == {"a": {"seeds": 1}}
    assert {"command", "commit", "machine", "versions"} < set(document)


# Points.


@pytest.mark.parametrize(("name", "modes"), [("ring", 8), ("grid", 25)])
def test_a_perfect_sampler_finds_all_modes(name, modes):
    """Within 3 standard deviations in the plane lie 1 - exp(-9 / 2) = 98.9 % of a Gaussian."""
    judged = mixtures.MIXTURES[name]().judged(mixtures.MIXTURES[name]().draw(200_000, Noise(1)))
    assert judged["modes"] == modes
    assert judged["high_quality"] == pytest.approx(1 - np.exp(-4.5), abs=1e-3)
    assert judged["reverse_kl"] < modes / 200_000 * 2      # (modes - 1) / (2 n) on average


def test_points_are_judged_by_hand():
    ring = mixtures.ring()
    assert torch.allclose(ring.means.norm(dim=1), torch.ones(8))
    one = ring.judged(ring.means[3].expand(100, 2))
    assert one == {"modes": 1, "high_quality": 1.0, "reverse_kl": pytest.approx(np.log(8))}
    away = ring.means[:1] + torch.tensor([[0.029, 0.0], [0.031, 0.0], [0.0, 0.0], [0.0, 0.5]])
    assert ring.judged(torch.cat([away, ring.means[1:2]]))["high_quality"] == pytest.approx(3 / 5)
    skewed = torch.cat([ring.means[:1].expand(3, 2), ring.means[1:2]])
    assert ring.judged(skewed)["reverse_kl"] == pytest.approx(0.75 * np.log(6) + 0.25 * np.log(2))
    nothing = ring.judged(torch.zeros(5, 2))
    assert (nothing["modes"], nothing["high_quality"], nothing["reverse_kl"]) == (0, 0.0, np.inf)


def test_an_arm_repeats_itself_and_averages_its_generator():
    settings = {"mixture": "ring", "steps": 6, **{name: points.ARMS["ring/recommended"][name] for name in
                ("loss", "gamma", "recipe")}, "model": {"generator_width": 8, "discriminator_width": 8}}  # fmt: skip
    first, again = (mixtures.trained(settings, 1, checks=3) for _ in range(2))
    assert first == again
    assert first != mixtures.trained(settings, 2, checks=3)
    assert [each["step"] for each in first["history"]] == [2, 4, 6]


@pytest.mark.parametrize("name", [name for name in points.ARMS if name.startswith("ring/")])
def test_every_arm_of_points_plays(name):
    model = {"generator_width": 8, "discriminator_width": 8}
    results = mixtures.trained({**points.ARMS[name], "steps": 6, "model": model}, 0, checks=2)
    assert results["broken_steps"] == 0
    assert 0 <= results["modes"] <= 8


# Stacked MNIST.


@pytest.fixture
def mnist(tmp_path):
    """A folder of MNIST's form: 40 digits that are easily told apart."""
    labels = np.array([0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 3, dtype=np.uint8)[:40]
    images = np.zeros((40, 28, 28), np.uint8)
    for image, label in zip(images, labels):
        image[2 * label + 3 : 2 * label + 8] = 255
    for name, array in zip(digits.FILES, (images[:30], labels[:30], images[30:], labels[30:])):
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
        (tmp_path / name).write_bytes(head + array.tobytes())
    return tmp_path


def test_digits_are_read_padded_and_stacked(mnist):
    data = digits.read(mnist)
    assert data.images.shape == (30, 32, 32)
    assert data.images[0, :, 2:-2].sum() == data.images[0].sum() > 0
    images = stacked_mnist.images_of(mnist, 20)
    triples = data.triples(20, seed=0)
    assert torch.equal(images.read([3])[0], data.all_images[triples[3]])
    assert images.fingerprint != digits.Stacked("mnist", data.all_images, triples[1:]).fingerprint()
    cut = (mnist / digits.FILES[0]).read_bytes()[:-1]
    (mnist / digits.FILES[0]).write_bytes(cut)
    with pytest.raises(DataError, match="is no idx file of bytes, or is cut short"):
        digits.read(mnist)
    (mnist / digits.FILES[0]).unlink()
    with pytest.raises(DataError, match="is missing: give the folder"):
        digits.read(mnist)


class Told(digits.Classifier):
    """Reads the class off the first pixel of an image."""

    def classes(self, images):
        return images[:, 0, 0].long()


def test_modes_are_counted_channel_by_channel():
    images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    images[1:, :, 0, 0] = torch.tensor([[1, 2, 3], [1, 2, 3], [9, 9, 9]])
    counts = digits.modes(Told(), iter(images.split(3)))
    assert counts.nonzero().flatten().tolist() == [0, 123, 999]
    assert counts[[0, 123, 999]].tolist() == [1, 2, 1]


def test_divergences_against_closed_forms():
    counts = torch.zeros(1000, dtype=torch.int64)
    counts[[1, 7]] = torch.tensor([300, 100])
    uniform = torch.full((1000,), 1e-3, dtype=torch.float64)
    assert digits.divergence(counts, uniform) == pytest.approx(np.log(1000) - np.log(4) + 0.75 * np.log(3))
    assert digits.divergence(torch.ones(1000), uniform) == pytest.approx(0, abs=1e-12)
    # Of n samples over k equally likely modes, chance alone gives (k - 1) / (2 n) to first order.
    assert digits.floors(uniform, 100_000, repeats=5)["kl_uniform"] == pytest.approx(999 / 200_000, rel=0.05)
    # MNIST's 70,000 digits and 26,000 samples.
    mnist = torch.tensor([6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]).double() / 70_000
    expected = torch.einsum("a,b,c->abc", mnist, mnist, mnist).flatten()
    floors = digits.floors(expected)
    assert floors["kl_uniform"] == pytest.approx(0.0237, abs=4e-4)
    assert floors["kl_data"] == pytest.approx(999 / 52_000, rel=0.02)


@pytest.mark.parametrize("name", [name for name in stacked_mnist.ARMS if name != "data"])
def test_stacked_arms_train_and_are_counted(name, mnist, tmp_path):
    settings = {**stacked_mnist.ARMS[name], **stacked_mnist.QUICK, "kimg": 0.128, "samples": 60, "triples": 64}
    folder = tmp_path / f"{name}-0"
    folder.mkdir()
    results = stacked_mnist.measure(settings, 0, folder, mnist=mnist, work=tmp_path, out=tmp_path)
    assert 1 <= results["modes"] <= 60
    assert results["kl_excess"] == pytest.approx(results["kl_uniform"] - results["floor"]["kl_uniform"])
    assert results["history"][-1]["kimg"] == 0.128
    assert (tmp_path / f"stacked_mnist_{name}.png").exists()


# Stability.


def test_spread_is_the_mean_distance_of_pairs():
    images = torch.tensor([0.0, 0.0, 1.0, 3.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    assert stability.spread(images) == pytest.approx(2.0)
    assert stability.spread(images[:1].expand(6, 1, 2, 2)) == 0


@pytest.mark.parametrize("name", [
    name if name.startswith("relativistic") else pytest.param(name, marks=pytest.mark.slow)
    for name in stability.ARMS if name.endswith("/0.001")
])  # fmt: skip
def test_every_way_trains(name, mnist, tmp_path):
    settings = {**stability.ARMS[name], "kimg": 0.128, "samples": 20, "reference": 10}
    results = stability.measure(settings, 0, tmp_path, images=mnist)
    assert results["frechet"] > 0
    assert results["survived"] in (0, 1)


def test_a_run_that_breaks_has_not_survived(mnist, tmp_path):
    settings = {**stability.ARMS["plain/0.001"], "kimg": 1.0, "recipe": {"lr": 1e30}}
    results = stability.measure(settings, 0, tmp_path, images=mnist)
    assert results["survived"] == 0
    assert results["frechet"] is None or results["spread"] < stability.SPREAD
