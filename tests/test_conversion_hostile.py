"""zoo.convert under attack: altered trees, odd names, full disks, killed and rival processes, damaged caches."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import running_hub  # noqa: F401
from r3gan_reference import networks, pickled
from safetensors.torch import load_file
from stylegan2_reference import Discriminator, Generator, tensorflow_generator, write_pickle
from test_conversion import GENERATOR, PARITY, faces, stranger  # noqa: F401
from torch import Tensor, nn

import zoo
from zoo import conversion_cache
from zoo.cli import main
from zoo.errors import LONGEST, Unsupported, WeightsError

# Trees that were altered anywhere: either a model that works, or one line.


def of_torch(path: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(PARITY / path, folder))


FILES: dict[str, Callable[[Path], Path]] = {
    "ajbrock G": of_torch("ajbrock_biggan32/G_ema.pth"),
    "ajbrock D": of_torch("ajbrock_biggan32/D.pth"),
    "dcgan": of_torch("dcgan_examples_rgb/netG_epoch_24.pth"),
    "rosinality": of_torch("rosinality_train32/800000.pt"),
    "latent diffusion": of_torch("diffusers_kl_gray3/ldm/vae.ckpt"),
    "taesd": of_torch("diffusers_taesd/taesd_decoder.safetensors"),
}
ROUNDS = 8
ODD: list[Any] = [
    -1, 0, 3, 10**9, 2**63, 0.5, float("nan"), float("inf"), "", "x" * 3000, "a\x1b[31m\nb", [], [1, 2], {}, {"a": 1},
    None, True, [[[[[[[[]]]]]]]], torch.zeros(3), torch.zeros(()),
]  # fmt: skip
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "scalar": lambda t: t.double().sum().float(),
    "empty": lambda t: t.reshape(-1)[:0].clone(),
    "flat": lambda t: t.reshape(1, -1),
    "longer": lambda t: torch.cat([t.reshape(-1), torch.ones(7, dtype=t.dtype)]),
    "int": lambda t: t.int(),
    "bool": lambda t: t.bool(),
    "float64": lambda t: torch.full(t.shape, 1e300, dtype=torch.float64),
    "bfloat16": lambda t: t.bfloat16(),
    "nan": lambda t: torch.full(t.shape, float("nan")),
    "zeros": torch.zeros_like,
    "many axes": lambda t: torch.ones([1] * 30),
}


def works_or_is_refused(path: Path, names: tuple[str, ...] = (), **config: Any) -> None:
    """Either what the model makes is finite, or one line names the file, and a tensor where that alone was altered."""
    try:
        model = zoo.convert(path, **config)
    except zoo.ZooError as error:
        said = str(error)
        files = [path, *path.iterdir()] if path.is_dir() else [path]
        assert any(file.name in said for file in files), said
        assert "\n" not in said
        assert len(said) <= LONGEST + 10
        assert not names or any(name in said for name in names), said
        return
    made = []
    if "generator" in model.networks() or "decoder" in model.networks():
        made.append(model.sample(2, seed=0))
    if "discriminator" in model.networks():
        size = (2, model.config.channels, model.config.resolution, model.config.resolution)
        made.append(model.logits(torch.zeros(size), model.each_class(2)))
    assert made
    assert all(bool(torch.isfinite(each).all()) for each in made)


def places(tree: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every dictionary of a tree and each of its keys."""
    for name, value in tree.items() if isinstance(tree, dict) else ():
        yield tree, name
        yield from places(value)


def altered(tree: Any, chance: random.Random) -> tuple[str, ...]:
    """Alter one place of a tree of dictionaries; return the tensor's names that a refusal may give."""
    found = list(places(tree))
    holder, name = chance.choice([each for each in found if isinstance(each[0][each[1]], Tensor)])
    kind = chance.randrange(5)
    if kind == 0:
        del holder[name]
    elif kind == 1:
        holder[f"{name}_more"] = holder[name]
    elif kind == 2:
        holder[name[::-1]] = holder.pop(name)
    elif kind == 3:
        holder[name] = chance.choice(list(CHANGES.values()))(holder[name])
    else:
        holder, name = chance.choice(found)
        holder[name] = chance.choice(ODD)
    return (name.rpartition(".")[0], name[::-1]) if kind < 3 else ()


@pytest.mark.parametrize("write", FILES.values(), ids=FILES)
def test_altered_files_work_or_are_refused(write, tmp_path):
    path = write(tmp_path)
    tensors = path.suffix == ".safetensors"
    for turn in range(ROUNDS):
        chance = random.Random(turn)
        tree = load_file(path) if tensors else torch.load(path, weights_only=False)
        names = altered(tree, chance)
        place = tmp_path / f"altered-{turn}{'.pth' if tensors else path.suffix}"      # no longer tensors alone
        torch.save(tree, place)
        works_or_is_refused(place, names, **({"norm_groups": 4} if path.suffix == ".ckpt" else {}))


def module_of(content: dict[str, nn.Module], chance: random.Random) -> dict[str, Any]:
    """The attributes of one of the modules."""
    return vars(chance.choice([module for network in content.values() for module in network.modules()]))


@pytest.mark.parametrize("kind", ["stylegan2", "tensorflow", "r3gan"])
def test_altered_pickles_work_or_are_refused(kind, tmp_path):
    """Each attribute of a pickled module is the stranger's."""
    for turn in range(ROUNDS):
        chance, path = random.Random(turn), tmp_path / f"altered-{turn}.pkl"
        torch.manual_seed(0)
        content: Any
        if kind == "tensorflow":
            about = {"resolution": 16, "num_channels": 3, "fmap_base": 128, "mapping_layers": 2}
            network = tensorflow_generator(Generator(16), **about)
            content, (state, name) = (network, None, network), chance.choice(list(places(network.state)))
        else:
            stylegan = {"G_ema": Generator(16, c=3), "D": Discriminator(16, c=3)}
            content = networks(classes=4) if kind == "r3gan" else stylegan
            state = module_of(content, chance)
            name = chance.choice(list(state))
        state[name] = chance.choice(ODD)
        if kind == "r3gan":
            path.write_bytes(pickled(content))
        else:
            write_pickle(path, content)
        works_or_is_refused(path)


def test_altered_configurations_work_or_are_refused(tmp_path):
    for case in ("diffusers_kl_gray3/diffusers", "diffusers_taesd/diffusers", "biggan_deep_toy64"):
        folder = tmp_path / case.replace("/", "-")
        shutil.copytree(PARITY / case, folder, ignore=shutil.ignore_patterns("*puts*", "meta*"))
        whole = json.loads((folder / "config.json").read_text())
        for turn in range(ROUNDS):
            chance, config = random.Random(turn), dict(whole)
            odd = [value for value in ODD if not isinstance(value, Tensor)]
            config[chance.choice(list(config))] = chance.choice([*odd, [10**9] * 3, ["a"]])
            (folder / "config.json").write_text(json.dumps(config))
            works_or_is_refused(folder)


# Names, folders and disks.


def test_a_folder_of_thousands_is_not_read(tmp_path):
    for i in range(3000):
        (tmp_path / f"netG_epoch_{i}.pth").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"3000 files with names of checkpoints: give the file itself"):
        zoo.convert(tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    os.mkfifo(tmp_path / "G.pth")
    for place, words in (("a", "cannot be opened"), ("G.pth", "a pipe or a device"), ("x" * 300, "cannot be opened")):
        with pytest.raises(WeightsError, match=words):
            zoo.convert(tmp_path / place)
    with pytest.raises(WeightsError, match="a pipe or a device"):
        zoo.convert("/dev/zero")


@pytest.mark.parametrize("name", [b"a\nb.pth", b"\x1b[31mred.pth", b"\xff\xfe.pth", b"n" * 246 + b".pth"])
def test_odd_names_are_shown_and_stored_harmlessly(name, tmp_path, capsys):
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
    shutil.copy(GENERATOR, path)
    assert main(["convert", path, str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 2
    assert said.replace("\n", "").isprintable()
    assert zoo.load(f"dir:{tmp_path / 'out'}").origin["source"]["files"].keys() == {Path(said.partition(" (")[0]).name}


def test_the_folder_is_checked_before_and_filled_at_once(tmp_path, capsys):
    (tmp_path / "file").touch()
    for place in ("file", "file/inside", "y" * 300):
        assert main(["convert", str(GENERATOR), str(tmp_path / place)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "empty").mkdir()
    for place in ("empty", "new/folder"):
        assert main(["convert", str(GENERATOR), str(tmp_path / place)]) == 0
        assert zoo.load(f"dir:{tmp_path / place}").absent == ("discriminator",)
        assert len(list((tmp_path / place).iterdir())) == 4
    assert not list(tmp_path.rglob(".draft-*"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_conversion_leaves_no_model(how, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo", "convert", str(GENERATOR), str(tmp_path / "out")],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    until = time.monotonic() + 60
    while process.poll() is None and not list(tmp_path.glob(".draft-*")) and time.monotonic() < until:
        time.sleep(0.001)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    if process.returncode == 0:
        assert zoo.load(f"dir:{tmp_path / 'out'}").absent      # it was faster
    else:
        assert not (tmp_path / "out").exists()
        assert process.returncode == (130 if how == signal.SIGINT else -9)
        assert said in (b"zoo: interrupted\n", b"")
        assert how == signal.SIGKILL or not list(tmp_path.iterdir())


def test_an_interrupt_just_after_the_folder_was_made_leaves_none(tmp_path, monkeypatch, capsys):
    made = []

    def interrupted(path, *rest, mkdir=os.mkdir, **named):
        mkdir(path, *rest, **named)
        if ".draft-" in str(path):
            made.append(path)
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "mkdir", interrupted)
    assert main(["convert", str(GENERATOR), str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == "zoo: interrupted\n"
    assert made
    assert not list(tmp_path.iterdir())


# The cache of converted weights.


def garbage(path: Path) -> None:
    path.write_bytes(b"\0garbage")


def folder_instead(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("damage", [garbage, folder_instead, cut, Path.unlink])
def test_a_damaged_cache_heals(damage, faces, tmp_path):  # noqa: F811
    before = zoo.load("acmegan.faces").sample(1, seed=0)
    place = tmp_path / "home" / "converted"
    for name in ("*@*.json", "*/manifest.json", "*/config.json", "*/model.safetensors"):
        (path,) = place.glob(name)
        damage(path)
        assert torch.equal(zoo.load("acmegan.faces").sample(1, seed=0), before), name
        if path.is_dir() and "@" in path.name:
            shutil.rmtree(path)
            zoo.load("acmegan.faces")
    (folder,) = (path for path in place.iterdir() if path.is_dir())
    shutil.rmtree(folder)
    folder.write_text("a file")
    assert torch.equal(zoo.load("acmegan.faces").sample(1, seed=0), before)
    (note,) = place.glob("*@*.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "key": "../../elsewhere"}))
    assert torch.equal(zoo.load("acmegan.faces").sample(1, seed=0), before)
    assert not list(place.glob(".*"))


@pytest.mark.filterwarnings("ignore")
def test_a_setting_that_does_not_fit_leaves_the_cache_alone(faces, tmp_path):  # noqa: F811
    zoo.load("acmegan.faces")
    (kept,) = (tmp_path / "home" / "converted").glob("*/model.safetensors")
    made, asked = kept.stat().st_mtime_ns, len(faces.requests)
    with pytest.raises(WeightsError, match="adapt=True"):
        zoo.load("acmegan.faces", resolution=128)
    assert (kept.stat().st_mtime_ns, len(faces.requests)) == (made, asked)


@pytest.mark.filterwarnings("ignore")
def test_a_pickle_that_runs_code_is_refused_and_leaves_nothing(stranger, hub, tmp_path):  # noqa: F811
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    hub.publish("acme/faces", {"runs/netG_epoch_24.pth": pickle.dumps({"main.0.weight": Bomb()}, 2)})
    with pytest.raises(WeightsError, match=r"netG_epoch_24\.pth"):
        zoo.load("acmegan.faces")
    assert not (tmp_path / "exploded").exists()
    assert not list((tmp_path / "home" / "converted").iterdir())


@pytest.mark.filterwarnings("ignore")
def test_two_processes_load_the_same_weights_cold(faces, tmp_path):  # noqa: F811
    script = "import sys, zoo; print(float(zoo.load('acmegan.faces').sample(1, seed=0).sum()))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[:2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", script]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    place = tmp_path / "home" / "converted"
    assert sorted(path.suffix for path in place.iterdir()) == ["", ".json"]


@pytest.mark.filterwarnings("ignore")
def test_the_draft_of_a_killed_process_is_swept_after_a_day(faces, tmp_path):  # noqa: F811
    place = conversion_cache.home()
    for name, age in (("old", 100_000), ("young", 100)):
        (place / f".draft-{name}").mkdir(parents=True)
        os.utime(place / f".draft-{name}", (time.time() - age,) * 2)
    zoo.load("acmegan.faces")
    assert [path.name for path in place.glob(".draft-*")] == [".draft-young"]


# Models that lack a network.


@pytest.mark.parametrize("file", ["dcgan_examples_rgb/netD_epoch_24.pth", "diffusers_taesd/taesd_encoder.safetensors"])
def test_what_needs_an_absent_network_says_so_in_one_line(file, tmp_path, capsys):
    model = zoo.convert(PARITY / file)
    folder = zoo.save(model, tmp_path / "saved")
    for attempt in (lambda: model.sample(1), lambda: model.decode(torch.zeros(1, 4, 4, 4))):
        with pytest.raises(Unsupported):
            attempt()
    for changed in ({"channels": 1}, {"resolution": model.config.resolution * 2}):
        assert zoo.load(f"dir:{folder}", adapt=True, **changed).absent == model.absent
    assert main(["info", f"dir:{folder}"]) == 0
    assert model.absent[0] in capsys.readouterr().out
    sampling = ["sample", f"dir:{folder}", "--out", str(tmp_path / "x.png")]
    for command in (sampling, ["publish", str(folder), "acme/x", "--dry-run"]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"hold no {model.absent[0]}" in said
