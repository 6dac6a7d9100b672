"""The command line as people meet it: what is printed where, and how it ends."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

import zoo
from zoo.cli import main
from zoo.values import parse

TINY = ["--set", "resolution=16", "--set", "generator_width=4", "--set", "discriminator_width=4", "--set", "latent=8"]
TRAIN = ["train", "dcgan", "emoji", "--out", "RUN", "--kimg", "1"]
SHORT = ["--kimg", "0.016", "--batch", "8"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A folder of 24 small pictures."""
    path = tmp_path_factory.mktemp("pictures")
    for i in range(24):
        Image.new("RGB", (16, 16), (i * 10, 255 - i * 10, 90)).save(path / f"{i:02}.png")
    return path


@pytest.fixture(scope="session")
def trained(folder, tmp_path_factory) -> Path:
    """A run directory that the command made."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "dcgan", str(folder), "--out", str(out), *SHORT, *TINY]) == 0
    return out


def mistake(capsys, *arguments: str) -> str:
    """Run a command that must end as a user's mistake, and return its one line."""
    capsys.readouterr()
    code = main(list(map(str, arguments)))
    seen = capsys.readouterr()
    assert code == 2, seen.err
    assert seen.out == ""
    assert seen.err.count("\n") == 1, seen.err
    assert seen.err.startswith("zoo: ")
    assert "Traceback" not in seen.err
    assert seen.err.strip().isprintable()
    return seen.err


def start(*arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "zoo", *map(str, arguments)]
    return subprocess.Popen(command, text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


# What it prints.


@pytest.mark.parametrize("arguments", [["list"], ["info", "dcgan"], ["plugins", "list"]], ids=" ".join)
def test_json_is_one_document_that_holds_what_people_read(arguments, capsys):
    assert main(arguments) == 0
    people = capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    machines = capsys.readouterr()
    json.loads(machines.out)
    for text in (people, machines.out):
        assert "dcgan" in text
        assert "genzoo" in text or arguments == ["list"]
    assert machines.err == ""


def test_list_pattern(capsys):
    assert main(["list", "*gan.emoji32", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["biggan.emoji32", "dcgan.emoji32", "stylegan.emoji32"]
    assert all(row["default"] and row["license"] and row["resolution"] == 32 for row in rows)


def test_list_says_that_a_pattern_matches_nothing(capsys):
    assert main(["list", "emoji"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "no name matches 'emoji'" in said.err


def test_info_tells_where_a_converted_model_comes_from(tmp_path, capsys):
    file = Path(__file__).parent / "parity" / "dcgan_examples_rgb" / "netG_epoch_24.pth"
    zoo.save(zoo.convert(file), tmp_path / "model")
    assert main(["info", f"dir:{tmp_path / 'model'}"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (lines["absent"], lines["format"]) == ("discriminator", "pytorch_dcgan")
    assert lines["converted"] == f"netG_epoch_24.pth={hashlib.sha256(file.read_bytes()).hexdigest()}"


def test_info_tells_configuration_and_size(trained, capsys):
    assert main(["info", f"dir:{trained / 'model'}", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["architecture"], facts["config"]["resolution"]) == ("dcgan", 16)
    tensors = load_file(trained / "model" / "model.safetensors")
    assert sum(facts["parameters"].values()) == sum(tensor.numel() for tensor in tensors.values())
    assert facts["bytes"] == (trained / "model" / "model.safetensors").stat().st_size


def test_every_verb_explains_itself(capsys):
    assert main([]) == 0
    overview = capsys.readouterr().out
    verbs = (
        "list info sample show train finetune evaluate compare explain report recipes publish convert plugins doctor "
        "demo"
    )
    for verb in verbs.split():
        assert f" {verb} " in overview
        assert main([verb, "--help"]) == 0
        assert "Usage" in capsys.readouterr().out
    for later in ("verify", "web"):
        assert f" {later} " not in overview


def test_sample_writes_the_same_picture_for_the_same_seed(trained, tmp_path, capsys):
    import zoo

    model = zoo.load(f"dir:{trained / 'model'}")
    name = f"dir:{lively(model, tmp_path)}"
    pictures = []
    for seed, out in ((1, "a.png"), (1, "b.png"), (2, "c.png")):
        assert main(["sample", name, "-n", "5", "--seed", str(seed), "--psi", "0.7", "--out", str(tmp_path / out)]) == 0
        assert str(tmp_path / out) in capsys.readouterr().out
        pictures.append(Image.open(tmp_path / out))
    assert pictures[0].size == (3 * 18 + 2, 2 * 18 + 2)
    first, second, third = (picture.tobytes() for picture in pictures)
    assert first == second != third


def test_labels_are_taken_in_turn(tmp_path):
    import zoo
    from zoo.images import grid

    path = lively(zoo.create("dcgan", resolution=16, generator_width=4, discriminator_width=4, num_classes=3), tmp_path)
    command = ["sample", f"dir:{path}", "-n", "5", "--seed", "3", "--labels", "2,0", "--out", str(tmp_path / "a.png")]
    assert main(command) == 0
    wanted = grid(zoo.load(f"dir:{path}").sample(5, seed=3, labels=[2, 0, 2, 0, 2]))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.tobytes() == wanted.tobytes()
    other = grid(zoo.load(f"dir:{path}").sample(5, seed=3, labels=[2, 0, 2, 0, 1]))
    assert other.tobytes() != wanted.tobytes()


def lively(model, folder: Path) -> Path:
    """Save a model with larger weights: after two steps of training all images are grey."""
    import zoo

    for weights in model.parameters():
        weights.data.mul_(10)
    return zoo.save(model, folder / "lively")


# Training.


def test_train_makes_a_run_with_plain_progress_lines(trained, folder, tmp_path, capfd):
    assert {"run.json", "log.jsonl", "model", "samples", "checkpoints"} <= {path.name for path in trained.iterdir()}
    made = json.loads((trained / "run.json").read_text())
    assert (made["config"]["resolution"], made["recipe"]["batch"]) == (16, 8)
    out = tmp_path / "again"
    arguments = ["train", "dcgan", str(folder), "--out", str(out), *SHORT, *TINY]
    assert main([*arguments, "--set", "lr=0.01", "--set", "betas=0.5,0.9"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert "0.016/0.016 kimg" in printed.out
    assert "\x1b" not in printed.out                # no bar where no terminal is
    recipe = json.loads((out / "run.json").read_text())["recipe"]
    assert (recipe["lr"], recipe["betas"]) == (0.01, [0.5, 0.9])


def test_seed_repeats_a_training(trained, folder, tmp_path):
    for name, seed in (("same", "0"), ("other", "1")):
        command = ["train", "dcgan", str(folder), "--out", str(tmp_path / name), *SHORT, *TINY, "--seed", seed]
        assert main(command) == 0
    first, same, other = (
        load_file(run / "model" / "model.safetensors") for run in (trained, tmp_path / "same", tmp_path / "other")
    )
    assert all(tensor.equal(same[name]) for name, tensor in first.items())
    assert not all(tensor.equal(other[name]) for name, tensor in first.items())


def test_finetune_from_a_folder_at_another_resolution(trained, folder, tmp_path):
    out = tmp_path / "tuned"
    name = f"dir:{trained / 'model'}"
    assert main(["finetune", name, str(folder), "--out", str(out), *SHORT, "--set", "lr=0.001"]) == 0
    made = json.loads((out / "run.json").read_text())
    assert made["recipe"]["lr"] == 0.001
    assert made["parent"]


def test_evaluate_prints_one_document_and_leaves_a_receipt(trained, folder, capsys):
    command = ["evaluate", str(trained), str(folder), "--features", "pixels", "--samples", "24", "--metrics", "kid"]
    assert main([*command, "--force", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "kid" in document["values"]
    assert json.loads((trained / "evaluation.json").read_text()) == document
    assert main([*command, "--force"]) == 0
    assert "kid" in capsys.readouterr().out


def test_publish_dry_run_sends_nothing(trained, capsys):
    assert main(["publish", str(trained), "acme/cats", "--dry-run"]) == 0
    assert "acme/cats" in capsys.readouterr().out


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lst"], ["'lst'", "zoo --help"]),
        (["list", "--jsn"], ["--json"]),
        (["plugins"], ["zoo plugins --help"]),
        (["sample", "dcgan"], ["--out", "zoo sample --help"]),
        (["sample", "dcgan", "--out", "x.png", "-n", "0"], ["-n"]),
        (["sample", "dcgn", "--out", "x.png"], ["Did you mean 'dcgan'?"]),
        (["sample", "dcgan", "--out", "x.png", "--labels", "0,cat"], ["--labels", "0,3,7"]),
        (["sample", "acme/cats", "--out", "x.png"], ["hub:acme/cats", "dir:acme/cats"]),
        (["info", "stylegan.emoji64"], ["emoji32"]),
        (["info", "ftp:here"], ["hub:", "dir:"]),
        (["train", "dcgn", "emoji", "--out", "RUN", "--kimg", "1"], ["Did you mean 'dcgan'?"]),
        (["train", "dcgan", "emoji", "--out", "RUN", "--kimg", "-1"], ["kimg"]),
        (["train", "dcgan", "emoji", "--out", "RUN", "--kimg", "ten"], ["--kimg"]),
        ([*TRAIN, "--precision", "fp8"], ["bf16"]),
        ([*TRAIN, "--processes", "0"], ["--processes"]),
        (["train", "dcgan", "no/such/folder", "--out", "RUN", "--kimg", "1"], ["no/such/folder"]),
        ([*TRAIN, "--set", "lr"], ["KEY=VALUE"]),
        ([*TRAIN, "--set", "lr=1", "--set", "lr=2"], ["twice"]),
        ([*TRAIN, "--set", "resolutin=64"], ["'resolution'", "latent", "anneal"]),
        ([*TRAIN, "--set", "resolution=big"], ["resolution", "big"]),
        ([*TRAIN, "--set", "resolution=48"], ["power of two"]),
        ([*TRAIN, "--set", "lr=fast"], ["lr", "fast"]),
        ([*TRAIN, "--set", "phases=1"], ["'phases'"]),
        (["finetune", "dcgn", "emoji", "--out", "RUN", "--kimg", "1"], ["Did you mean 'dcgan'?"]),
        (["evaluate", "dcgn", "emoji"], ["Did you mean 'dcgan'?"]),
        (["publish", "dcgn", "acme/cats"], ["Did you mean 'dcgan'?"]),
        (["info", "\x1b[2Jevil\n"], ["\\x1b"]),
    ],
)  # fmt: skip
def test_mistake_is_one_line_and_exit_code_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = mistake(capsys, *arguments)
    assert all(word in line for word in words), line
    assert not list(tmp_path.iterdir())             # and nothing was begun


def test_taken_run_directory(trained, folder, capsys):
    assert "--resume" in mistake(capsys, "train", "dcgan", folder, "--out", trained, *SHORT, *TINY)


def test_data_that_holds_no_images(tmp_path, capsys):
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.mkdir()
    text.mkdir()
    (text / "notes.txt").write_text("no picture")
    for data in (empty, text, text / "notes.txt"):
        line = mistake(capsys, "train", "dcgan", data, "--out", tmp_path / "run", *SHORT, *TINY)
        assert str(data) in line
    assert not (tmp_path / "run").exists()


def spoil_number(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["config"]["resolution"] = "sixteen"
    (model / "config.json").write_text(json.dumps(config))


def spoil_json(model: Path) -> None:
    (model / "config.json").write_text('{"architecture": ')


def spoil_end(model: Path) -> None:
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[:-100])


def spoil_key(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors[sorted(tensors)[0]]
    save_file(tensors, model / "model.safetensors")


def spoil_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


@pytest.mark.parametrize("spoil", [spoil_number, spoil_json, spoil_end, spoil_key, spoil_weights])
@pytest.mark.parametrize("manifest", [True, False])
def test_spoilt_model_folder(spoil, manifest, trained, tmp_path, capsys):
    import shutil

    model = tmp_path / "model"
    shutil.copytree(trained / "model", model)
    if not manifest:
        (model / "manifest.json").unlink()
    spoil(model)
    mistake(capsys, "sample", f"dir:{model}", "--out", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


# Failures, interruptions, pipes.


def test_debug_shows_where(capsys):
    assert main(["info", "dcgn", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_is_a_failure():
    with open("/dev/full", "w") as full:
        process = start("list", stdout=full)
        _, line = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "No space left" in line
    assert line.count("\n") == 1


def test_reader_that_went_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    process = start("list", "--json", stdout=writing)
    os.close(writing)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (141, "")


def test_interrupt_ends_with_130_and_no_traceback(folder, tmp_path):
    out = tmp_path / "run"
    process = start("train", "dcgan", folder, "--out", out, "--kimg", "1000", "--batch", "8", *TINY)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "00000000").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.count("\n") == 1
    assert "Traceback" not in said


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(terminal):
    ours, theirs = os.openpty() if terminal else os.pipe()
    work = "from zoo.cli.progress import Progress\nwith Progress('work') as tell:"
    work += "\n    tell(1, 2, {'loss': 3.0})\n    tell(2, 2, {'loss': 0.5})"
    subprocess.run([sys.executable, "-c", work], stdout=theirs, check=True, env={**os.environ, "TERM": "xterm"})
    text = os.read(ours, 100_000).decode()
    os.close(theirs)
    os.close(ours)
    assert "2/2 kimg" in text
    assert ("\x1b[" in text) == terminal
    assert text.splitlines()[0].startswith("work: 1/2 kimg  loss 3") != terminal


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-2", -2), ("0.5", 0.5), ("1e-3", 0.001), ("true", True), ("False", False), ("none", None),
        ("cosine", "cosine"), ("0.5,0.9", (0.5, 0.9)), ("color,", ("color",)), ('"1"', "1"), ('"a,b"', "a,b"), ("", ""),
    ],
)  # fmt: skip
def test_values_of_settings(text, value):
    found = parse(text)
    assert found == value
    assert type(found) is type(value)
