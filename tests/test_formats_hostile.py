"""Hostile and damaged checkpoints: one line that names the file, nothing run, nothing written, whatever the bytes."""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import hostile_files
import pytest
import torch
from safetensors.torch import save

from zoo.errors import WeightsError
from zoo.formats.contract import Instance
from zoo.formats.handover import LONGEST_HEADER, write
from zoo.formats.headers import header
from zoo.formats.parsing import parse
from zoo.formats.reading import read_file

# What executes such files: pickle.load as often as there are pickles, torch.load where torch's containers are needed.
LOADER = """
import contextlib, os, pickle, sys, types
import torch
persistence = types.ModuleType("torch_utils.persistence")           # as NVIDIA's: it runs the source that it is given
def _reconstruct_persistent_obj(meta):
    exec(meta["module_src"], {})
persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
sys.modules |= {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": persistence}
for name in sorted(os.listdir("files")):
    path = os.path.join("files", name)
    with contextlib.suppress(Exception), open(path, "rb") as file, contextlib.redirect_stdout(sys.stderr):
        if name.startswith("85"):
            torch.load(path, weights_only=False)
        while True:
            pickle.load(file)
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> set[str]:
    """The names of the payloads that ran in a plain loader."""
    home = tmp_path_factory.mktemp("live")
    (home / "files").mkdir()
    (home / "canaries").mkdir()
    for name, build in hostile_files.LIVE.items():
        (home / "files" / name).write_bytes(build(str(home / "canaries" / name.replace("'", ""))))
    subprocess.run([sys.executable, "-W", "ignore", "-c", LOADER], cwd=home, check=True, capture_output=True)
    found = {path.name for path in (home / "canaries").iterdir()}
    return {name for name in hostile_files.LIVE if name.replace("'", "") in found}


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Return a function that asserts that a file of these bytes is refused in one line, and returns the line."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(home)

    def check(raw: bytes, name: str = "model.pt") -> str:
        (home / name).write_bytes(raw)
        modules = set(sys.modules)
        with pytest.raises(WeightsError) as caught:
            read_file(home / name)
        said = str(caught.value)
        assert said.startswith(f"{home / name}: ")
        assert said.isprintable()
        assert "cannot be read (" not in said, "an error that nobody thought of"
        assert set(sys.modules) == modules
        assert [path.name for path in home.iterdir()] == [name]
        assert list(temporary.iterdir()) == []
        (home / name).unlink()
        return said

    return check


@pytest.mark.parametrize("name", hostile_files.LIVE)
def test_what_runs_code_in_a_plain_loader_is_refused_and_does_not_run(name, ran, refused, tmp_path):
    assert name in ran, "the payload is dead: the test proves nothing"
    canary = tmp_path / "canary"
    raw = hostile_files.LIVE[name](str(canary))
    if name.startswith("59"):                                  # NVIDIA's shell of a network: read without its source
        (tmp_path / "network.pkl").write_bytes(raw)
        assert read_file(tmp_path / "network.pkl") == Instance("Generator", {})
    else:
        refused(raw)
    assert not canary.exists()


def test_there_are_enough_live_payloads(ran):
    assert len(ran) == len(hostile_files.LIVE) >= 18


@pytest.mark.parametrize("name", hostile_files.MALFORMED)
def test_malformed_pickles(name, refused):
    refused(hostile_files.MALFORMED[name](), "network.pkl")


@pytest.mark.parametrize("name", hostile_files.ARCHIVES)
def test_altered_archives(name, refused):
    said = refused(hostile_files.ARCHIVES[name]())
    assert "opcode" not in said                                # refused for the archive


@pytest.mark.parametrize("name", hostile_files.SAFETENSORS)
def test_malformed_safetensors(name, refused):
    refused(hostile_files.SAFETENSORS[name](), "model.safetensors")


@pytest.mark.parametrize("name", hostile_files.OTHERS)
def test_other_files_are_named(name, refused):
    build, says = hostile_files.OTHERS[name]
    assert says in refused(build())


def test_the_honest_neighbours_are_read(tmp_path):
    """What the hostile files are made of reads, so that each is refused for what was altered."""
    path = tmp_path / "model.pt"
    for raw in (
        hostile_files.torch_file(hostile_files.honest_pickle()),
        hostile_files.tensors(hostile_files.one(), bytes(8)),
        hostile_files.tensors(hostile_files.one() | hostile_files.one("b", shape=(0,), span=(8, 8)), bytes(8)),
        hostile_files.tensors(hostile_files.one("../../passwd") | hostile_files.one("\u0430", span=(8, 16)), bytes(16)),
        b"\x80\x02" + b"]" * 100 + b"a" * 99 + b".",
        hostile_files._frame(0),
        hostile_files._array("f4", (2, 2), bytes(16)),
        hostile_files._nested(2),
    ):
        path.write_bytes(raw)
        assert read_file(path) is not None


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    names = ("pipe", "folder", "loop", "nowhere", "absent", "x" * 300)
    for path in (*(tmp_path / name for name in names), "/dev/zero", "a\0b"):
        with pytest.raises(WeightsError) as caught:
            read_file(path)
        assert str(caught.value).isprintable()


def test_the_caller_does_not_trust_the_reading_process(tmp_path):
    """A process taken over by a file could write anything."""
    from zoo.formats.reading import _take_over

    def handed(tree: str, names: tuple[str, ...] = ("0",)) -> bytes:
        records = {"__metadata__": {"tree": tree}}
        for i, name in enumerate(names):
            records |= hostile_files.one(name, shape=(1,), span=(4 * i, 4 * i + 4))
        return hostile_files.tensors(records, bytes(4 * len(names)))

    path = tmp_path / "tensors"
    path.write_bytes(handed('{"d":[["a",{"t":0}]]}'))
    assert torch.equal(_take_over(path)["a"], torch.zeros(1))
    for raw in (
        b"", b"abc", handed("[" * 100_000), handed("{}"), handed('{"t":1}'), handed('[{"t":0},{"t":0}]'), handed("[]"),
        handed('{"t":0,"x":1}'), handed('{"d":[[[],1]]}'), handed('{"d":[1]}'), handed('{"i":3,"s":[]}'), handed("no"),
        handed('{"t":0}', ("0", "__init__")), handed('{"t":0}')[:-1], hostile_files.tensors({"0": {}}),
        *(build() for name, build in hostile_files.SAFETENSORS.items() if name[:2] != "34"),
    ):  # fmt: skip
        path.write_bytes(raw)
        with pytest.raises((ValueError, TypeError, KeyError, RecursionError, RuntimeError, WeightsError)):
            _take_over(path)


# Mutations.


KINDS = ("archive", "old container", "plain pickle", "framed pickle", "data.pkl", "safetensors", "network")


@cache
def seeds() -> dict[str, bytes]:
    """Small honest files of every kind."""
    made = {"w": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(2).half(), "n": [1, (2.5, None)], "t": "text"}
    parity = Path(__file__).parent / "parity"
    found = {
        "archive": hostile_files.saved(made),
        "old container": hostile_files.saved(made, _use_new_zipfile_serialization=False),
        "plain pickle": pickle.dumps(made, 2),
        "framed pickle": pickle.dumps(made | {"more": ["abc"] * 3}, 4),
        "data.pkl": hostile_files.unzipped(hostile_files.saved(made))["archive/data.pkl"],
        "safetensors": save({"w": made["w"].contiguous(), "b": made["b"]}, {"format": "pt"}),
        "network": (parity / "nvlabs_sg2ada_resnet_gray32" / "network-snapshot.inert.pkl").read_bytes(),
    }
    assert tuple(found) == KINDS
    return found


def mutated(raw: bytes, draw: random.Random) -> bytes:
    """Return the bytes with a few flipped, exchanged, cut, doubled or put elsewhere, mostly near the beginning."""
    made = bytearray(raw)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        at = min(int(draw.random() ** draw.choice((1, 3)) * len(made)), len(made) - 1)
        length = draw.choice((1, 1, 2, 4, 8, 30))
        match draw.randrange(7):
            case 0:
                made[at] ^= 1 << draw.randrange(8)
            case 1:
                made[at] = draw.choice(b"\x00\x01\x7f\x80\xff.()]}tuesabRbQcX\x8a\x81\x93\x94\x95hqjr0129\"{")
            case 2:
                del made[at : at + length]
            case 3:
                made[at:at] = made[at : at + length]
            case 4:
                start = draw.randrange(len(made))
                made[at : at + length] = made[start : start + length]
            case 5:
                made[at : at + length] = draw.randbytes(length)
            case _:
                del made[at + draw.randrange(1, 4000) :]
        if not made:
            return b""
    return bytes(made)


def survives(kind: str, raw: bytes) -> bool:
    """Whether a file is read; what is read must be a whole handover. Any other error than our own comes through."""
    if kind == "data.pkl":                                          # in an archive whose checksums are right
        raw = hostile_files.zipped(hostile_files.unzipped(seeds()["archive"]) | {"archive/data.pkl": raw})
    out = io.BytesIO()
    try:
        write(parse(memoryview(raw)), len(raw), out)
    except WeightsError:
        return False
    handed = out.getvalue()
    header(memoryview(handed), len(handed), LONGEST_HEADER)
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_mutations_are_refused_or_read(kind):
    raw, draw = seeds()[kind], random.Random(kind)
    assert survives(kind, raw)
    read = sum(survives(kind, mutated(raw, draw)) for _ in range(40 if kind == "network" else 1000))
    assert read < 1000


@pytest.mark.parametrize("kind", ["archive", "old container", "framed pickle", "safetensors"])
def test_every_cut_is_refused(kind):
    raw = seeds()[kind]
    assert not any(survives(kind, raw[:length]) for length in range(0, len(raw), 1 + len(raw) // 1000))


def test_mutations_through_the_reading_process(tmp_path):
    draw, read = random.Random(7), 0
    for raw in seeds().values():
        for _ in range(2):
            (tmp_path / "model.pt").write_bytes(mutated(raw, draw))
            with suppress(WeightsError):
                read_file(tmp_path / "model.pt")
                read += 1
    assert read < 14


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_100000_mutations(kind):
    raw, draw = seeds()[kind], random.Random(f"{kind} at length")
    for _ in range(400 if kind == "network" else 16_600):
        survives(kind, mutated(raw, draw))
