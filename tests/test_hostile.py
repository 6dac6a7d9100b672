"""What an impatient or hostile user gives to every command: one line, exit code 2, nothing written, nothing run."""

import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import zoo
from zoo.cli import main

SETTINGS = {"resolution": 16, "generator_width": 4, "discriminator_width": 4, "latent": 8}
SMALL = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
SHORT = ["--out", "RUN", "--kimg", "0.016", "--batch", "8"]
NAMED = {  # every command that takes a model; NAME and DATA are filled in
    "info": ["info", "NAME"],
    "sample": ["sample", "NAME", "--out", "x.png", "-n", "2"],
    "finetune": ["finetune", "NAME", "DATA", *SHORT],
    "evaluate": ["evaluate", "NAME", "DATA", "--features", "pixels", "--samples", "8", "--metrics", "kid", "--force"],
    "publish": ["publish", "NAME", "acme/cats", "--dry-run"],
}
FED = {name: NAMED[name] for name in ("finetune", "evaluate")} | {"train": ["train", "dcgan", "DATA", *SHORT, *SMALL]}
TRAIN = ["train", "dcgan", "DATA", *SHORT, *SMALL]
NESTED = 60_000


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a model, a few pictures and a finished run; no test changes it."""
    home = tmp_path_factory.mktemp("made")
    (home / "pictures").mkdir()
    for i in range(8):
        Image.new("RGB", (16, 16), (i * 30, 255 - i * 30, 90)).save(home / "pictures" / f"{i}.png")
    torch.manual_seed(0)
    zoo.save(zoo.create("dcgan", **SETTINGS), home / "model")
    assert main(["train", "dcgan", str(home / "pictures"), *SMALL, *SHORT[2:], "--out", str(home / "run")]) == 0
    return home


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """An empty working directory, where everything that a command writes would land; no Hub in reach."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return work


def filled(arguments: list[str], made: Path, name: object = None, data: object = None) -> list[str]:
    places = {"NAME": name or f"dir:{made / 'model'}", "DATA": data or made / "pictures"}
    return [str(places.get(word, word)) for word in arguments]


def refused(arguments: list[str], capsys, *, codes: tuple[int, ...] = (2,)) -> str:
    """Run a command that must end as a user's mistake and write nothing; return its one line."""
    capsys.readouterr()
    code = main(arguments)
    seen = capsys.readouterr()
    assert code in codes, f"{code}: {seen.err}{seen.out}"
    assert seen.out == ""
    lines = seen.err.splitlines()
    assert len(lines) == 1, seen.err
    assert lines[0].startswith("zoo: ")
    assert len(lines[0]) > 20
    assert len(lines[0]) < 2000
    assert "Traceback" not in lines[0]
    assert lines[0].isprintable()
    assert not list(Path.cwd().iterdir())
    return lines[0]


def rule_broken(call) -> str:
    """Call something that must raise a ZooError with one line; return the line."""
    with pytest.raises(zoo.ZooError) as caught:
        call()
    line = str(caught.value)
    assert line.isprintable()
    assert 10 < len(line) < 2000
    return line


# Names.

NAMES = [
    "dcgn", "dcgan.nosuchtag", "dcgan.", ".emoji32", "dcgan.emoji32.more", "acme/cats", "/etc/passwd", "../x", "", " ",
    "os:system", "zoo_dcgan.model:DCGAN", "dсgan", "\u202enagcd", "DCGAN\nzoo: fine", "x" * 100_000, "-", "--",
    "dcgan;ls",
    "dir:", "dir:no/such/folder", "dir:" + "x" * 5000, "dir:/dev/null", "dir:/proc/self/mem", "dir:~nobody_here/x",
    "hub:", "hub:cats", "hub:a/b/c", "hub:../x", "hub:acme/cats@", "hub:acme/cats@@v1", "hub:acme/cats@v1@v2",
    "hub:acme/ca ts", "hub:аcme/cats", "hub:https://huggingface.co/acme/cats", "hub:acme/.." , "hub:acme/cats",
    "hub:" + "x" * 500 + "/y", "hf:acme/cats", "file:///etc/passwd", "%s%n{0}", "\x1b[31mred", "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("command", NAMED)
@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:30]))
def test_names(command, name, made, capsys):
    refused(filled(NAMED[command], made, name=name or " "), capsys)


@pytest.mark.parametrize(
    "name", [each for each in NAMES if not each.startswith(("dir:", "hub:"))], ids=lambda n: ascii(n[:30])
)
def test_names_of_architectures(name, made, capsys):
    arguments = filled(TRAIN, made)
    arguments[1] = name
    refused(arguments, capsys)
    rule_broken(lambda: zoo.create(name))


@pytest.mark.parametrize(
    "name",
    [*NAMES, None, 7, Path("x"), ["dcgan"], b"dcgan", "dir:a\0b", "hub:a/b\nc", "a/b\nc"],
    ids=lambda n: ascii(n)[:30],
)
def test_names_from_python(name, made):
    rule_broken(lambda: zoo.load(name))
    rule_broken(lambda: zoo.finetune(name, made / "pictures", kimg=0.016, out="RUN"))
    rule_broken(lambda: zoo.evaluate(name, made / "pictures", features="pixels", metrics=["kid"], samples=8))
    rule_broken(lambda: zoo.publish(name, "acme/cats", dry_run=True))


# Model folders.


def config_with(**changes):
    def spoil(folder: Path) -> None:
        whole = json.loads((folder / "config.json").read_text())
        for name, value in changes.items():
            (whole["config"] if name in whole["config"] or name == "depht" else whole)[name] = value
        (folder / "config.json").write_text(json.dumps(whole))

    return spoil


def written(name: str, content: str | bytes):
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def tensors_with(change):
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors, next(iter(sorted(tensors))))
        save_file(tensors, folder / "model.safetensors")

    return spoil


def cut(size: int):
    def spoil(folder: Path) -> None:
        os.truncate(
            folder / "model.safetensors", size if size >= 0 else (folder / "model.safetensors").stat().st_size + size
        )

    return spoil


def replaced(name: str, make):
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return spoil


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("pickle-was-executed",)


def header(content: dict | bytes, size: int | None = None) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text


def one_tensor(shape: list[int], end: int) -> dict:
    return {"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


def deep(depth: int):
    def spoil(folder: Path) -> None:
        text = (
            (folder / "config.json")
            .read_text()
            .replace('"origin": {', '"origin": {"x": ' + "[" * depth + "]" * depth + ", ")
        )
        (folder / "config.json").write_text(text.replace(", }", "}"))

    return spoil


FAULTS = {
    "string for a number": config_with(resolution="sixteen"),
    "number as text": config_with(resolution="16"),
    "true for a number": config_with(resolution=True),
    "float for an integer": config_with(resolution=16.0),
    "not a number": config_with(resolution=float("nan")),
    "infinite": config_with(latent=float("inf")),
    "huge resolution": config_with(resolution=10**9),
    "huge integer": config_with(resolution=10**4000),
    "no power of two": config_with(resolution=48),
    "negative": config_with(latent=-1),
    "huge model": config_with(resolution=1024, generator_width=1024, discriminator_width=1024),
    "large model": config_with(resolution=512, generator_width=512, discriminator_width=512),
    "unknown setting": config_with(depht=3),
    "unknown entry": config_with(more="x"),
    "unknown entry over two lines": config_with(**{"a\nzoo: b" * 500: 1}),
    "nested garbage": config_with(config={"resolution": {"resolution": [[]]}}),
    "config is a list": config_with(config=[1, 2]),
    "config is null": config_with(config=None),
    "origin is text": config_with(origin="x"),
    "newer schema": config_with(schema_version=99),
    "class path": config_with(architecture="os:system"),
    "path": config_with(architecture="../x"),
    "look-alike": config_with(architecture="dсgan"),
    "no architecture": config_with(architecture=""),
    "surrogate": config_with(architecture="\ud800"),
    "another architecture": config_with(architecture="stylegan"),
    "architecture is a list": config_with(architecture=["dcgan"]),
    "large file": written("config.json", " " * 50_000_000),
    "deep JSON": written("config.json", "[" * NESTED + "]" * NESTED),
    "deep origin": deep(NESTED),
    "less deep origin": deep(400),
    "JSON cut": written("config.json", '{"architecture": '),
    "no JSON": written("config.json", "hello"),
    "empty JSON": written("config.json", "{}"),
    "null": written("config.json", "null"),
    "empty file": written("config.json", ""),
    "binary": written("config.json", b"\xff\xfe\x00\x80"),
    "no config": replaced("config.json", lambda path: None),
    "config is a folder": replaced("config.json", Path.mkdir),
    "config is a pipe": replaced("config.json", os.mkfifo),
    "config never ends": replaced("config.json", lambda path: path.symlink_to("/dev/zero")),
    "config is a loop": replaced("config.json", lambda path: path.symlink_to(path)),
    "no weights": replaced("model.safetensors", lambda path: None),
    "weights are a folder": replaced("model.safetensors", Path.mkdir),
    "weights are a pipe": replaced("model.safetensors", os.mkfifo),
    "weights are a loop": replaced("model.safetensors", lambda path: path.symlink_to(path)),
    "empty weights": cut(0),
    "weights cut in the length": cut(5),
    "weights cut in the header": cut(50),
    "weights cut at the end": cut(-100),
    "pickle": written("model.safetensors", pickle.dumps(Bomb())),
    "torch's pickle": replaced("model.safetensors", lambda path: torch.save({"x": Bomb()}, path)),
    "header without end": written("model.safetensors", header(b"{}", 2**63)),
    "header of 100 MB": written("model.safetensors", header(b"{}", 10**8)),
    "header is no mapping": written("model.safetensors", header(b"[1]")),
    "header is deep": written("model.safetensors", header(b'{"x":' * NESTED + b"1" + b"}" * NESTED)),
    "shape of 8 EiB": written("model.safetensors", header(one_tensor([2**61], 2**63))),
    "shape that is negative": written("model.safetensors", header(one_tensor([-1], 4)) + b"0000"),
    "no tensors": written("model.safetensors", header({})),
    "missing key": tensors_with(lambda tensors, first: tensors.pop(first)),
    "extra key": tensors_with(lambda tensors, first: tensors.update(extra=torch.ones(1))),
    "key that is a path": tensors_with(lambda tensors, first: tensors.update({"../../x": torch.ones(1)})),
    "key over two lines": tensors_with(lambda tensors, first: tensors.update({"a\nzoo: b": torch.ones(1)})),
    "average of nothing": tensors_with(lambda tensors, first: tensors.update({"averages.nothing.x": torch.ones(1)})),
    "average of a method": tensors_with(lambda tensors, first: tensors.update({"averages.forward.x": torch.ones(1)})),
    "average of averages": tensors_with(lambda tensors, first: tensors.update({"averages.averages.x": torch.ones(1)})),
    "average without a name": tensors_with(lambda tensors, first: tensors.update({"averages..x": torch.ones(1)})),
    "average alone": tensors_with(lambda tensors, first: tensors.update({"averages.": torch.ones(1)})),
    "wrong shape": tensors_with(lambda tensors, first: tensors.update({first: torch.ones(3)})),
    "empty tensor": tensors_with(lambda tensors, first: tensors.update({first: torch.ones(0)})),
    "integers": tensors_with(lambda tensors, first: tensors.update({first: tensors[first].to(torch.int64)})),
    "complex numbers": tensors_with(lambda tensors, first: tensors.update({first: tensors[first].to(torch.complex64)})),
    "NaN": tensors_with(lambda tensors, first: tensors[first].flatten()[0:1].fill_(float("nan"))),
    "infinity": tensors_with(lambda tensors, first: tensors[first].flatten()[0:1].fill_(float("inf"))),
}  # fmt: skip
WITH_MANIFEST = {
    "altered weights": tensors_with(lambda tensors, first: tensors[first].add_(1)),
    "altered config": config_with(num_classes=1),
    "manifest is garbage": written("manifest.json", "garbage"),
    "manifest is null": written("manifest.json", "null"),
    "manifest is a list": written("manifest.json", "[]"),
    "manifest is empty": written("manifest.json", "{}"),
    "manifest names nothing": written("manifest.json", '{"files": {}}'),
    "manifest of lists": written("manifest.json", '{"files": {"config.json": [], "model.safetensors": []}}'),
    "manifest of files that are a list": written("manifest.json", '{"files": []}'),
    "manifest is deep": written("manifest.json", "[" * NESTED),
    "manifest is a pipe": replaced("manifest.json", os.mkfifo),
    "manifest is a loop": replaced("manifest.json", lambda path: path.symlink_to(path)),
}


def spoilt(fault: str, made: Path, folder: Path) -> Path:
    shutil.copytree(made / "model", folder)
    if fault in FAULTS:
        (folder / "manifest.json").unlink()  # or the hash would find out first
    (FAULTS | WITH_MANIFEST)[fault](folder)
    return folder


@pytest.mark.parametrize("command", NAMED)
@pytest.mark.parametrize("fault", FAULTS | WITH_MANIFEST)
def test_spoilt_model(command, fault, made, tmp_path, capsys):
    folder = spoilt(fault, made, tmp_path / "model")
    refused(filled(NAMED[command], made, name=f"dir:{folder}"), capsys)


@pytest.mark.parametrize("fault", FAULTS | WITH_MANIFEST)
def test_spoilt_model_from_python(fault, made, tmp_path):
    folder = spoilt(fault, made, tmp_path / "model")
    rule_broken(lambda: zoo.load(f"dir:{folder}"))


@pytest.mark.parametrize(
    "fault", ["average of nothing", "integers", "NaN", "huge model", "large model", "pickle", "surrogate"]
)
def test_adapting_a_spoilt_model(fault, made, tmp_path):
    folder = spoilt(fault, made, tmp_path / "model")
    if fault in ("average of nothing", "integers"):  # adaptation may drop what is too much and draw what is wrong
        assert zoo.load(f"dir:{folder}", adapt=True, channels=1).sample(2, seed=0).isfinite().all()
    else:
        rule_broken(lambda: zoo.load(f"dir:{folder}", adapt=True, channels=1))


def test_adapting_an_empty_tensor_stays_finite(made, tmp_path):
    folder = spoilt("empty tensor", made, tmp_path / "model")
    assert all(tensor.isfinite().all() for tensor in zoo.load(f"dir:{folder}", adapt=True).state_dict().values())


@pytest.mark.parametrize("origin", [
    {"data": []}, {"data": 3}, {"data": {"name": [], "classes": 3}}, {"license": {"a": 1}}, {"kimg": "long"},
    {"parent": "x"}, {"parent": {"parent": 1, "commit": 3, "repo": []}}, {"name": "\ud800"}, {"name": "# a\n| b |"},
    {"license": None, "method": {}, "commit": 1e300},
], ids=str)  # fmt: skip
def test_odd_origin_reaches_no_traceback(origin, made, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(made / "model", folder)
    (folder / "manifest.json").unlink()
    config_with(origin=origin)(folder)
    for command in NAMED.values():
        code = main(filled(command, made, name=f"dir:{folder}"))
        said = capsys.readouterr().err
        assert code == 0 or (code == 2 and said.count("\n") == 1), said
        shutil.rmtree("RUN", ignore_errors=True)


# Data.


def text_files(suffix: str):
    def make(path: Path) -> None:
        path.mkdir()
        for i in range(3):
            (path / f"{i}{suffix}").write_text("no picture")

    return make


DATA = {
    "nothing there": lambda path: None,
    "empty folder": Path.mkdir,
    "folder of text": text_files(".txt"),
    "text called png": text_files(".png"),
    "folder of empty folders": lambda path: (path / "a").mkdir(parents=True),
    "zip that is none": lambda path: path.write_text("hello"),
    "empty file": Path.touch,
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path),
}
SPECS = [
    "emoji:typo", "emoji:", "emoji:-", "emoji:a,,b", "emojis", "hf:", "hf:a/b/c", "hf:acme/nothing", "", " ",
    "/dev/zero",
    "~nobody_here/x", "http://localhost/x.zip", "x" * 5000, "\udcff", "a\nb",
]  # fmt: skip


@pytest.mark.parametrize("command", FED)
@pytest.mark.parametrize("kind", DATA)
def test_places_without_images(command, kind, made, tmp_path, capsys):
    DATA[kind](tmp_path / "data")
    refused(filled(FED[command], made, data=tmp_path / "data"), capsys)


@pytest.mark.parametrize("command", FED)
@pytest.mark.parametrize("data", SPECS, ids=lambda data: ascii(data[:30]))
def test_names_of_data(command, data, made, capsys):
    refused(["" if word == "EMPTY" else word for word in filled(FED[command], made, data=data or "EMPTY")], capsys)


@pytest.mark.parametrize("data", [*SPECS, "a\0b", None, 7, ["emoji"], b"emoji"], ids=lambda data: ascii(data)[:30])
def test_data_from_python(data, made):
    model = zoo.create("dcgan", **SETTINGS)
    rule_broken(lambda: zoo.train(model, data, kimg=0.016, out="RUN"))
    rule_broken(lambda: zoo.evaluate(model, data, metrics=["kid"], features="pixels", samples=8))
    rule_broken(lambda: zoo.finetune(model, data, kimg=0.016, out="RUN"))
    assert not Path("RUN").exists()


# Options.

HUGE = str(10**40)
OPTIONS = {
    "sample": [
        ["-n", "0"], ["-n", "-1"], ["-n", "1000000000"], ["-n", HUGE], ["-n", "2.5"], ["-n", "many"], ["--psi", "nan"],
        ["--psi", "inf"], ["--psi", "big"], ["--seed", "x"], ["--seed", "1.5"], ["--labels", "0"], ["--labels", ""],
        ["--labels", "cat"], ["--labels", "1,,2"], ["--labels", HUGE], ["--labels", "-1"], ["--out", "x.txt"],
        ["--out", "x"], ["--out", "x.pdf.exe"], ["--nonsense"], ["--out"],
    ],
    "train": [
        ["--kimg", "0"], ["--kimg", "-1"], ["--kimg", "nan"], ["--kimg", "inf"], ["--kimg", "1e-9"], ["--kimg", "-inf"],
        ["--batch", "0"], ["--batch", "-8"], ["--batch", "nan"], ["--batch", "1000000000000"], ["--accumulate", "0"],
        ["--accumulate", "3"], ["--accumulate", "1000000"], ["--workers", "-1"], ["--workers", "1000000"],
        ["--precision", "fp8"], ["--seed", "x"], ["--processes", "0"], ["--processes", "100000"], ["--processes", "x"],
        ["--set", "garbage"], ["--set", "="], ["--set", "=5"], ["--set", "lr=nan"], ["--set", "lr=-1"],
        ["--set", "lr=1e999"], ["--set", "lr=0.1,0.2"], ["--set", "betas=0.5"], ["--set", "betas=0.5,2"],
        ["--set", "batch=0"], ["--set", "mirror=7"], ["--set", "augment=typo"], ["--set", "ema_kimg=0"],
        ["--set", "anneal=typo"], ["--set", "clip_norm=-1"], ["--set", "eps=0"], ["--set", "phases=1"],
        ["--set", "channels=2"], ["--set", "channels=5"], ["--set", "num_classes=-1"], ["--set", "num_classes=7"],
        ["--set", "averages=1"], ["--set", "__class__=1"], ["--set", "lr=" + "9" * 5000], ["--set", "\x1b[2J=1"],
        ["--out", "/proc/nowhere/RUN"], ["--out", "/dev/null"], ["--out", "/dev/null/RUN"], ["--out", "x" * 5000],
    ],
    "finetune": [
        ["--kimg", "0"], ["--kimg", "nan"], ["--kimg", "inf"], ["--method", "typo"], ["--method", ""], ["--batch", "0"],
        ["--set", "resolution=17"], ["--set", "resolution=big"], ["--set", "latent=9999999999"], ["--set", "lr=0"],
        ["--set", "num_classes=3"], ["--processes", "0"], ["--processes", "100000"], ["--precision", "int4"],
        ["--seed", "x"], ["--out", "/dev/null"],
    ],
    "evaluate": [
        ["--metrics", "typo"], ["--metrics", ""], ["--metrics", ","], ["--metrics", "kid,typo"], ["--features", "typo"],
        ["--features", ""], ["--features", "pixels:9"], ["--features", "timm:"], ["--features", "timm:nosuchmodel"],
        ["--features", "os:system"], ["--samples", "0"], ["--samples", "1"], ["--samples", "-1"], ["--samples", "x"],
        ["--samples", HUGE], ["--batch", "0"], ["--reference", "0"], ["--reference", "1"], ["--reference", "9"],
        ["--psi", "nan"], ["--psi", "inf"], ["--seed", "x"],
    ],
    "publish": [["--token"], ["--dry-run=maybe"], ["--private", "more"]],
    "info": [["--jsn"], ["more"]],
}  # fmt: skip
FAILING_PLACES = ("/proc/nowhere/RUN", "/dev/null/RUN", "x" * 5000)  # a failure of the work is as good an end


@pytest.mark.parametrize(
    ("command", "options"),
    [(command, options) for command, many in OPTIONS.items() for options in many],
    ids=lambda value: ascii(" ".join(value)[:40]) if isinstance(value, list) else value,
)
def test_options(command, options, made, capsys):
    arguments = filled({**NAMED, "train": TRAIN}[command], made)
    if options[0] == "--set" and options[-1].partition("=")[0] in SETTINGS:
        arguments = [word for word in arguments if word not in SMALL]
    refused([*arguments, *options], capsys, codes=(1, 2) if options[-1] in FAILING_PLACES else (2,))


@pytest.mark.parametrize("arguments", [
    ["list", "--jsn"], ["list", "a", "b"], ["plugins"], ["plugins", "nosuch"], ["plugins", "list", "more"],
    ["demo", "--kimg", "0"], ["demo", "--kimg", "nan"], ["demo", "--kimg", "inf"], ["demo", "--kimg", "-5"],
    ["demo", "--seed", "x"], ["demo", "--out", "/dev/null"], ["demo", "--out", "/proc"],
    ["demo", "more"], ["nosuch"], ["\x1b[2J"], ["-x"], ["sample"], ["train"], ["train", "dcgan"], ["publish"],
], ids=lambda arguments: ascii(" ".join(arguments)[:30]))  # fmt: skip
def test_other_commands(arguments, capsys):
    refused(arguments, capsys)


@pytest.mark.parametrize("repo", [
    "cats", "acme/cats/x", "../x", "acme/", "/cats", "acme/cats@v1", "acme/ca ts", "аcme/cats", " ", "acme/cats.git",
    "acme//cats", "hub:acme/cats", "acme/cats\n", "x" * 300 + "/y", "https://huggingface.co/acme/cats",
], ids=lambda repo: ascii(repo[:30]))  # fmt: skip
@pytest.mark.parametrize("dry", [True, False])
def test_names_to_publish_under(repo, dry, made, capsys):
    refused(["publish", f"dir:{made / 'model'}", repo, *(["--dry-run"] if dry else [])], capsys)


@pytest.mark.parametrize("seed", ["-1", HUGE, str(2**64), str(-(2**63) - 1)])
def test_any_integer_is_a_seed(seed, made, capsys):
    for arguments in (NAMED["sample"], TRAIN, NAMED["evaluate"]):
        assert main([*filled(arguments, made), "--seed", seed]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("architecture", ["dcgan", "stylegan", "biggan", "vae"])
def test_the_same_seed_gives_the_same_bytes(architecture, tiny, tmp_path):
    small = {"biggan": {"resolution": 16, "width": 2}, "vae": {"resolution": 16, "width": 4, "latent": 8}}
    model = tiny(architecture) if architecture not in small else zoo.create(architecture, **small[architecture])
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(3)
    folder = zoo.save(model, tmp_path / "model")
    pictures = []
    for name, seed in (("a.png", "5"), ("b.png", "5"), ("c.png", "6")):
        torch.manual_seed(len(pictures))  # the state of the global generator must not matter
        assert main(["sample", f"dir:{folder}", "-n", "70", "--seed", seed, "--psi", "0.7", "--out", name]) == 0
        pictures.append(Path(name).read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


# Runs.

RUNS = {
    "run.json is garbage": ("run.json", "garbage"),
    "run.json is a list": ("run.json", "[1]"),
    "run.json is empty": ("run.json", ""),
    "run.json is deep": ("run.json", "[" * NESTED),
    "run.json is binary": ("run.json", b"\xff\xfe\x80"),
    "no model": ("model/config.json", None),
    "config.json is garbage": ("model/config.json", "garbage"),
    "weights are cut": ("model/model.safetensors", b"\0" * 100),
}


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def put(path: Path, content: str | bytes | None) -> None:
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


READ = {"run.json": ("publish", "resume"), "model": ("publish", "evaluate")}      # which command reads what


@pytest.mark.parametrize(
    ("command", "fault"),
    [(command, fault) for fault, (name, _) in RUNS.items() for command in READ[name.partition("/")[0]]],
)
def test_spoilt_run(command, fault, made, run, capsys):
    put(run / RUNS[fault][0], RUNS[fault][1])
    resume = [*filled(TRAIN, made), "--out", str(run), "--resume"]
    refused(resume if command == "resume" else filled(NAMED[command], made, name=run), capsys)


@pytest.mark.parametrize(
    "content", ["garbage", "[1]", "{}", '{"receipt": 3}', '{"receipt": {"model": []}}', "[" * NESTED]
)
def test_spoilt_evaluation_is_refused_or_left_out(content, made, run, capsys):
    (run / "evaluation.json").write_text(content)
    code = main(filled(NAMED["publish"], made, name=run))
    said = capsys.readouterr().err
    assert code in (0, 2), said
    assert code == 0 or said.count("\n") == 1


def test_taken_places(made, run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for arguments in (TRAIN, NAMED["finetune"]):
        assert "--resume" in refused([*filled(arguments, made), "--out", str(run)], capsys)
        assert "is a file" in refused([*filled(arguments, made), "--out", str(run / "run.json")], capsys)
    refused(["demo", "--out", str(run)], capsys)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_picture_that_cannot_be_written(made, tmp_path, capsys):
    (tmp_path / "taken.png").mkdir()
    for out in (tmp_path / "taken.png", "/proc/nowhere/x.png", "/dev/null/x.png", "y" * 300 + ".png"):
        refused([*filled(NAMED["sample"], made), "--out", str(out)], capsys, codes=(1, 2))


# From Python.


def test_settings_from_python():
    for config in (
        {"resolution": "16"}, {"resolution": None}, {"resolution": object()}, {"resolution": 10**5000}, {"latent": [1]},
        {"resoluton": 16}, {"latent": float("nan")}, {"channels": True}, {"a\nb": 1}, {"latent": "x\ny" * 3000},
    ):  # fmt: skip
        rule_broken(lambda: zoo.create("dcgan", **config))  # noqa: B023
        rule_broken(lambda: zoo.load("dcgan", **config))  # noqa: B023


def test_a_model_that_does_not_fit_is_refused_before_anything_is_allocated(made):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, config in (
        ("dcgan", {"resolution": 1024, "generator_width": 1024}),
        ("dcgan", {"resolution": 512, "generator_width": 512, "discriminator_width": 512}),
        ("stylegan", {"resolution": 2048, "channel_base": 2**20, "channel_max": 8192}),
        ("vae", {"resolution": 4096, "width": 1024, "widest": 4096, "depth": 16}),
    ):
        assert "GiB" in rule_broken(lambda: zoo.create(name, **config))  # noqa: B023
    blocks = [(False, 1, 1)] * 100_000
    rule_broken(lambda: zoo.create("biggan", resolution=16, generator_blocks=blocks, discriminator_blocks=blocks))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB


def test_training_from_python(made):
    data, model = made / "pictures", zoo.create("dcgan", **SETTINGS)
    good = {"kimg": 0.016, "out": "RUN"}
    for options in (
        {"kimg": 0}, {"kimg": "long"}, {"kimg": None}, {"kimg": float("inf")}, {"kimg": True + 1j}, {"batch": 0},
        {"batch": "many"}, {"batch": 2.5}, {"batch": 8, "settings": {"batch": 4}},
        {"seed": "x"}, {"seed": None}, {"seed": 1.5}, {"recipe": "adam"}, {"recipe": 3},
        {"settings": {"lr": "x"}}, {"settings": {"typo": 1}}, {"settings": ["lr"]}, {"precision": "fp8"},
        {"precision": 16}, {"accumulate": 0}, {"accumulate": "x"}, {"workers": -1}, {"workers": "x"}, {"tick_kimg": 0},
        {"tick_kimg": "x"}, {"keep": 0}, {"out": None}, {"out": 7}, {"out": "a\0b"},
    ):  # fmt: skip
        rule_broken(lambda: zoo.train(model, data, **{**good, **options}))  # noqa: B023
        rule_broken(lambda: zoo.finetune(model, data, **{**good, **options}))  # noqa: B023
    for wrong in ("dcgan", None, torch.nn.Linear(1, 1)):
        rule_broken(lambda: zoo.train(wrong, data, **good))  # noqa: B023
    rule_broken(lambda: zoo.finetune(model, data, method="typo", **good))
    rule_broken(lambda: zoo.finetune(model, data, method=None, **good))
    rule_broken(lambda: zoo.finetune(model, data, typo=3, **good))
    assert not Path("RUN").exists()


def test_sampling_from_python():
    model = zoo.create("dcgan", **SETTINGS)
    classes = zoo.create("dcgan", **SETTINGS, num_classes=3)
    z = torch.zeros(2, 8)
    for options in (
        {"n": 0}, {"n": -1}, {"n": "4"}, {"n": 2.5}, {"n": 10**10}, {"n": 10**30}, {"psi": float("nan")}, {"psi": "x"},
        {"psi": None}, {"seed": "x"}, {"seed": 1.5}, {"z": z[0]}, {"z": z[:, :7]}, {"z": z[:, :, None]},
        {"z": z.long()}, {"z": [[0.0] * 8]}, {"z": z * float("nan")}, {"z": z, "n": 3}, {"labels": [0]},
        {"typo": 3}, {"noise": "const"},
    ):  # fmt: skip
        rule_broken(lambda: model.sample(**options))  # noqa: B023
    for labels in (
        [3],
        [-1],
        [10**30],
        ["a"],
        [0.5],
        "cat",
        7,
        [[1.0, 0.0]],
        [[0], [1, 2]],
        [],
        [None],
        {0: 1},
        [[float("nan")] * 3],
    ):
        rule_broken(lambda: classes.sample(labels=labels))  # noqa: B023
    rule_broken(lambda: zoo.create("stylegan", resolution=16).sample(2, noise="typo"))
    rule_broken(lambda: zoo.create("stylegan", resolution=16).sample(2, cutoff="x", psi=0.5))
    for images in (torch.zeros(1, 3, 8, 8), torch.zeros(3, 16, 16), torch.zeros(1, 3, 16, 16).byte(), None):
        rule_broken(lambda: model.logits(images))  # noqa: B023
    vae = zoo.create("vae", resolution=16, width=4)
    for call in (model.encode, model.decode, vae.encode, vae.decode, vae.logits):
        rule_broken(lambda: call(torch.zeros(1, 2, 16, 16)))  # noqa: B023
        rule_broken(lambda: call(None))  # noqa: B023
    assert torch.equal(model.sample(z=z.double(), seed=0), model.sample(z=z, seed=0))


def test_evaluating_from_python(made):
    model, data = zoo.create("dcgan", **SETTINGS), made / "pictures"
    good = {"metrics": ["kid"], "features": "pixels", "samples": 8}
    for options in (
        {"metrics": []}, {"metrics": None}, {"metrics": [3]}, {"metrics": 3}, {"features": None}, {"features": 3},
        {"samples": "x"}, {"samples": 2.5}, {"samples": None}, {"batch": None}, {"reference": "x"}, {"psi": "x"},
        {"psi": float("inf")}, {"seed": "x"}, {"seed": None}, {"samples": 10**30},
    ):  # fmt: skip
        rule_broken(lambda: zoo.evaluate(model, data, **{**good, **options}))  # noqa: B023


def test_places_from_python(made):
    model = zoo.create("dcgan", **SETTINGS)
    rule_broken(lambda: zoo.load("dcgan", device="abacus"))
    rule_broken(lambda: zoo.load("dcgan", device="cuda:99"))
    rule_broken(lambda: zoo.load("dcgan", revision="v1"))
    rule_broken(lambda: zoo.load(f"dir:{made / 'model'}", revision="v1"))
    rule_broken(lambda: zoo.save(model, made / "pictures" / "0.png"))
    rule_broken(lambda: zoo.save("dcgan", "OUT"))
    rule_broken(lambda: zoo.save(model, None))
    for repo in (None, 7, "cats", "acme/cats@v1"):
        rule_broken(lambda: zoo.publish(model, repo, dry_run=True))  # noqa: B023
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    rule_broken(lambda: zoo.save(model, "OUT"))
    rule_broken(lambda: zoo.publish(model, "acme/cats", dry_run=True))
    assert not list(Path.cwd().iterdir())


def test_weights_that_make_no_finite_images_make_no_picture(made, tmp_path, capsys):
    folder = spoilt("missing key", made, tmp_path / "broken")
    tensors = load_file(made / "model" / "model.safetensors")
    save_file(
        {name: tensor * 1e30 if tensor.is_floating_point() else tensor for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )
    for command in ("sample", "publish", "evaluate"):
        capsys.readouterr()
        assert main(filled(NAMED[command], made, name=f"dir:{folder}")) == 2
        said = capsys.readouterr().err
        assert "finite" in said or "NaN" in said
    assert not list(Path.cwd().iterdir())
