"""Every checkpoint of a run measured alike: values over kimg, kept in the run and drawn in its report."""

import json
import shutil

import pytest
from processes import together

import zoo
from zoo.cli import main
from zoo.errors import EvaluationError, RunError, WeightsError
from zoo.evaluation import Evaluation
from zoo.learning_curve import FILE, known, learning_curve
from zoo.measuring import Settings

SMILEYS = "emoji:smileys-emotion"
QUICK = Settings(metrics=("kid", "precision_recall"), samples=64, features="pixels")
EVERY, LAST = 0.032, 0.096      # kimg between checkpoints, and of the last one


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("zoo-home")
    monkeypatch.setenv("ZOO_HOME", str(path))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with checkpoints of steps 0, 2, 4 and 6."""
    out = tmp_path_factory.mktemp("runs") / "four"
    model = zoo.create("dcgan", resolution=16, latent=8, generator_width=8, discriminator_width=8)
    zoo.train(model, SMILEYS, kimg=LAST, batch=16, seed=1, out=out, checkpoint_kimg=EVERY, tick_kimg=EVERY, keep=9)
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_each_checkpoint_has_the_values_of_its_networks(run):
    curve = learning_curve(run, SMILEYS, QUICK)
    assert [point.step for point in curve.points] == [0, 2, 4, 6]      # untrained networks too
    assert [kimg for kimg, _ in curve.values("kid")] == pytest.approx([0, EVERY, 2 * EVERY, LAST])
    assert len({value for _, value in curve.values("kid")}) == 4
    last = zoo.evaluate(run, SMILEYS, metrics=QUICK.metrics, samples=64, features="pixels")
    assert last.values == curve.points[-1].evaluation.values      # RUN/model is of that step
    receipt = curve.points[0].evaluation.receipt
    assert (receipt["given"]["data"], receipt["given"]["model"], receipt["fake_images"]) == (SMILEYS, None, 64)
    assert Evaluation.open(curve.points[0].evaluation.save(run / "0.json")).values["kid"] == curve.values("kid")[0][1]


def test_what_was_measured_is_kept_and_not_measured_again(run):
    told = []
    first = learning_curve(run, SMILEYS, QUICK)
    shutil.rmtree(run / "checkpoints" / "00000002")      # as a training does that keeps few
    again = learning_curve(run, SMILEYS, QUICK, progress=lambda *each: told.append(each))
    assert (told, again.to_dict()) == ([], first.to_dict())
    other = learning_curve(run, SMILEYS, Settings(**{**vars(QUICK), "samples": 65}))      # of another measure
    assert [point.step for point in other.points] == [0, 4, 6]
    assert len((run / FILE).read_text().splitlines()) == len(known(zoo.Run(run))) == 7
    assert learning_curve(run, SMILEYS, QUICK).to_dict() == first.to_dict()


def test_other_weights_of_a_step_are_measured_anew(run, trained):
    """As after a training that went back."""
    first = learning_curve(run, SMILEYS, QUICK)
    shutil.rmtree(run)
    model = zoo.create("dcgan", resolution=16, latent=8, generator_width=8, discriminator_width=8)
    zoo.train(model, SMILEYS, kimg=LAST, batch=16, seed=2, out=run, checkpoint_kimg=EVERY, tick_kimg=EVERY, keep=9)
    (run / FILE).write_text("".join(json.dumps(point.to_dict()) + "\n" for point in first.points))
    again = learning_curve(run, SMILEYS, QUICK)
    assert [point.step for point in again.points] == [0, 2, 4, 6]
    assert not set(first.values("kid")) & set(again.values("kid"))


def test_a_file_that_a_crash_cut_or_a_stranger_wrote_loses_nothing_else(run):
    first = learning_curve(run, SMILEYS, QUICK)
    lines = (run / FILE).read_bytes().splitlines(keepends=True)
    odd = [b"[]\n", b"\xff\n", b'{"step": 1e999, "kimg": 0}\n', b'{"step": 2, "kimg": 1, "values": {}}\n',
           b"[" * 9999 + b"\n"]  # fmt: skip
    (run / FILE).write_bytes(b"".join([*odd, *lines[:3], lines[3][:40]]))
    assert len(known(zoo.Run(run))) == 3
    assert learning_curve(run, SMILEYS, QUICK).to_dict() == first.to_dict()
    assert (run / FILE).read_bytes().splitlines(keepends=True)[-1] == lines[3]      # not glued to the half line


def test_a_damaged_checkpoint_is_left_out_and_said(run, caplog):
    weights = run / "checkpoints" / "00000004" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (run / "checkpoints" / "00000002" / "manifest.json").unlink()
    assert [point.step for point in learning_curve(run, SMILEYS, QUICK).points] == [0, 6]
    assert [line.split(" is left out: ")[0][-8:] for line in caplog.messages] == ["00000002", "00000004"]
    assert "its sha256 differs from the manifest" in caplog.text


def test_what_has_no_curve_is_refused(run, tmp_path):
    with pytest.raises(RunError, match=r"is no run directory"):
        learning_curve(tmp_path, SMILEYS, QUICK)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(EvaluationError, match=r"has no whole checkpoint: zoo train --every KIMG makes them"):
        learning_curve(run, SMILEYS, QUICK)


def test_a_training_that_grows_is_refused(trained, run):
    settings = json.loads((run / "run.json").read_text())
    settings["recipe"]["added"] = ["progressive"]
    (run / "run.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r"in the middle of such a training \(progressive, lora\) make no samples"):
        learning_curve(run, SMILEYS, QUICK)


def _in_two(run):
    found = learning_curve(run, SMILEYS, QUICK, shared=True)
    assert len(found.points) == 4


def test_two_processes_find_what_one_finds(run):
    alone = learning_curve(run, SMILEYS, QUICK)
    (run / FILE).unlink()
    together(_in_two, 2, run)
    found = known(zoo.Run(run))
    assert [point.evaluation.values for point in found] == [point.evaluation.values for point in alone.points]


def test_the_command_prints_a_table_and_the_report_draws_it(run, capsys):
    words = ["evaluate", str(run), SMILEYS, "--checkpoints", "--metrics", "kid,precision_recall", "--samples", "64",
             "--features", "pixels"]  # fmt: skip
    assert main(words) == 0
    table = capsys.readouterr().out.split("\nkimg")[1].splitlines()
    assert table[0].split() == ["kid", "precision", "recall"]
    assert [line.split()[0] for line in table[1:5]] == ["0", "0.032", "0.064", "0.096"]
    assert "±" in table[1]
    assert table[5].startswith(f"64 samples (seed 0, psi 1) against 169 images of {SMILEYS}; features pixels")
    assert main([*words, "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert [set(point) for point in points] == [{"step", "kimg", "values", "receipt"}] * 4
    assert points[0]["receipt"]["command"].startswith("zoo evaluate ")
    page = zoo.report(run, out=run / "page.html").read_text()
    assert "Checkpoint by checkpoint" in page
    value = f"{points[0]['values']['kid']:.6g}"
    assert f'data-kimg="0 0.032 0.064 0.096" data-values="{value} ' in page


@pytest.mark.parametrize("more", [("--budget", "60s"), ("--fast",), ("--resolution", "16"), ("--parent", "dcgan")])
def test_what_would_not_be_alike_is_refused(trained, more, capsys):
    assert main(["evaluate", str(trained), SMILEYS, "--checkpoints", *more]) == 2
    assert f"{more[0]} is not for --checkpoints, which all are measured alike: leave it out." in capsys.readouterr().err
