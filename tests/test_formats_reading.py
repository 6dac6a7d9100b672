"""Foreign checkpoints read as data: what torch.save and pickle write comes back equal, nothing is imported for it."""

from __future__ import annotations

import argparse
import collections
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zoo.errors import WeightsError
from zoo.formats.contract import Instance, network
from zoo.formats.reading import read_file

PARITY = Path(__file__).parent / "parity"
SUFFIXES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".safetensors"}
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e8m0fnu,
]  # fmt: skip
LAYOUTS = {"zip": True, "legacy": False}


class Network:
    """As dnnlib.tflib.network.Network writes itself: variables as pairs of name and array, and its own source."""


def same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bits."""
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return False
    return torch.equal(*(each.contiguous().reshape(-1).view(torch.uint8) for each in (ours, theirs)))


@pytest.fixture
def read(tmp_path):
    """Return a function that writes an object with torch.save and reads it."""

    def turn(content: object, layout: str = "zip", **options):
        path = tmp_path / "checkpoint.pt"
        torch.save(content, path, _use_new_zipfile_serialization=LAYOUTS[layout], **options)
        return read_file(path)

    return turn


FILES = sorted(path for path in PARITY.rglob("*") if path.suffix in SUFFIXES and path.stem not in ("inputs", "outputs"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PARITY)))
def test_every_file_of_the_parity_cases_reads(path):
    tree = read_file(path)
    if path.suffix in (".pth", ".bin", ".ckpt") and "old" not in str(path.parent):
        theirs = torch.load(path, weights_only=True)
        ours, theirs = tree.get("state_dict", tree), theirs.get("state_dict", theirs)
        assert list(ours) == list(theirs)
        assert all(same(ours[name], theirs[name]) for name in theirs)
    else:
        assert isinstance(tree, dict)
        assert tree


@pytest.mark.parametrize("case", ["nvlabs_sg2ada_resnet_gray32", "nvlabs_sg3r_32_cond"])
def test_nvidias_networks_come_as_records_and_their_source_stays_in_the_file(case):
    path = PARITY / case / "network-snapshot.inert.pkl"
    tree = read_file(path)
    assert not {name for name in sys.modules if name.split(".")[0] in ("dnnlib", "torch_utils")}
    generator = tree["G_ema"]
    assert isinstance(generator, Instance)
    assert generator.kind == "Generator"
    tensors = network(generator)
    assert tensors["mapping.w_avg"].dtype == torch.float32
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors.values())
    assert generator.state["_init_kwargs"]["img_resolution"] == 32
    assert b"module_src" in path.read_bytes()
    assert "module_src" not in repr(tree)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_dtype_keeps_its_bits(read, layout):
    made = {str(dtype): torch.randint(0, 2, (5, 3), dtype=torch.uint8).to(dtype) for dtype in DTYPES}
    made["nan"] = torch.tensor([float("nan"), float("inf"), -0.0])
    found = read(made, layout)
    assert list(found) == list(made)
    assert [name for name in made if not same(found[name], made[name])] == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strided_tied_and_empty_tensors(read, layout):
    whole = torch.arange(120.0).reshape(2, 3, 4, 5)
    made = {
        "whole": whole, "tied": whole, "row": whole[1], "turned": whole.permute(3, 1, 0, 2), "step": whole[..., 1::2],
        "last": whole.to(memory_format=torch.channels_last), "scalar": torch.tensor(3), "empty": torch.zeros(0, 7),
        "one": torch.ones(1).expand(1, 1), "corner": whole[1, 2, 3, 4],
    }  # fmt: skip
    found = read(made, layout)
    assert [name for name in made if not same(found[name], made[name])] == []
    found["whole"].zero_()
    assert all(same(found[name], made[name]) for name in ("tied", "row"))         # nothing shares memory
    assert all(tensor.is_contiguous() for tensor in found.values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_modules_and_optimisers(read, layout):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    optimizer = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(4)}}, "param_groups": [{"params": [0]}]}
    tagged = torch.nn.Parameter(torch.ones(2))
    tagged.tag = "kept by torch as state"
    found = read({"model": module, "sd": module.state_dict(), "opt": optimizer, "tagged": tagged}, layout)
    for tensors in (found["sd"], network(found["model"])):
        assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
            name: tensor.tolist() for name, tensor in module.state_dict().items()
        }
    assert found["model"].state["_modules"]["0"].kind == "torch.nn.modules.conv.Conv2d"
    assert same(found["opt"]["state"][0]["exp_avg"], torch.ones(4))
    assert found["opt"]["param_groups"] == [{"params": [0]}]
    assert same(found["tagged"], torch.ones(2))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_content_of_every_protocol(read, layout, protocol):
    made = {
        "size": torch.Size([1, 2]), "device": torch.device("cuda", 1), "cpu": torch.device("cpu"),
        "dtype": torch.float32,
        "default": collections.defaultdict(list, x=[1]), "ordered": collections.OrderedDict(b=1, a=2), "set": {7},
        "frozen": frozenset([8]), "arguments": argparse.Namespace(lr=0.002, path=["a"]),
        "count": collections.Counter("aab"), "large": 2**70, "negative": -5, "float": 1.5, "nested": (1, (2, [3])),
        "bytes": b"ab\xff", "none": None, "yes": True,
        3: "integer key", None: "none key", "path": Path("/a/b"), "text": "ж\n\x1b",
        "bytearray": bytearray(b"xy"), "nothing": b"",
    }  # fmt: skip
    found = read(made, layout, pickle_protocol=protocol)
    assert found == {
        "size": [1, 2], "device": "cuda:1", "cpu": "cpu", "dtype": "torch.float32", "default": {"x": [1]},
        "ordered": {"b": 1, "a": 2}, "set": [7], "frozen": [8], "arguments": {"lr": 0.002, "path": ["a"]},
        "count": {"a": 2, "b": 1}, "large": 2**70, "negative": -5, "float": 1.5, "nested": [1, [2, [3]]],
        "bytes": "ab\xff", "none": None, "yes": True, 3: "integer key", None: "none key", "path": "/a/b",
        "text": "ж\n\x1b", "bytearray": "xy", "nothing": "",
    }  # fmt: skip
    assert list(found) == list(made)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numpy_content_of_every_protocol(tmp_path, protocol):
    made = {
        "rows": np.arange(6.0).reshape(2, 3), "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"), "bigcomplex": np.array([1 + 2j], ">c8"), "empty": np.zeros((0, 3)),
        "zero": np.array(5), "bool": np.array([True, False]), "half": np.ones(2, np.float16), "step": np.arange(9)[::2],
    }  # fmt: skip
    scalars = {
        "float": np.float32(1.5), "int": np.int64(-3), "bool": np.bool_(True), "big": np.dtype(">f8").type(2.5),
        "text": np.str_("hé"), "bytes": np.bytes_(b"raw"),
    }  # fmt: skip
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps({"arrays": made, "scalars": scalars, "dtype": np.dtype("f4")}, protocol))
    found = read_file(path)
    assert [name for name, array in made.items() if not np.array_equal(found["arrays"][name].numpy(), array)] == []
    assert [found["arrays"][name].dtype for name in ("rows", "half")] == [torch.float64, torch.float16]
    assert found["scalars"] == {"float": 1.5, "int": -3, "bool": True, "big": 2.5, "text": "hé", "bytes": "raw"}
    assert [type(value) for value in found["scalars"].values()] == [float, int, bool, float, str, str]
    assert found["dtype"] == "float32"


def test_tensors_pickled_without_torch_save(tmp_path):
    """As NVIDIA's snapshots are: each storage is a torch file of its own, inside the pickle."""
    path = tmp_path / "plain.pkl"
    made = {"a": torch.randn(3, 4).t(), "b": torch.nn.Parameter(torch.arange(3.0)), "c": torch.ones(2).bool()}
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps(made, protocol))
        found = read_file(path)
        assert all(same(found[name], made[name].detach()) for name in made)


def test_tensorflows_networks(tmp_path):
    value = Network()
    value.__dict__ = {
        "version": 4, "name": "Gs", "static_kwargs": {"num_channels": 3}, "build_module_src": "raise SystemExit",
        "variables": [("4x4/Const/const", np.ones((1, 2, 4, 4), np.float32)), ("lod", np.float32(0.0))],
    }  # fmt: skip
    for protocol in (2, 4):
        raw = pickle.dumps((None, None, value), protocol)
        own = (
            f"c{__name__}\nNetwork\n".encode(), b"cdnnlib.tflib.network\nNetwork\n",
            b"\x8c" + bytes([len(__name__)]) + __name__.encode() + b"\x94\x8c\x07Network",
            b"\x8c\x14dnnlib.tflib.network\x94\x8c\x07Network",
        )  # fmt: skip
        raw = raw.replace(own[0], own[1])
        if own[2] in raw:                                              # a frame holds the length of what it frames
            start = raw.index(b"\x95") + 1
            length = int.from_bytes(raw[start : start + 8], "little") + len(own[3]) - len(own[2])
            raw = (raw[:start] + length.to_bytes(8, "little") + raw[start + 8 :]).replace(own[2], own[3])
        (tmp_path / "tf.pkl").write_bytes(raw)
        nothing, _, found = read_file(tmp_path / "tf.pkl")
        assert (nothing, found.kind) == (None, "dnnlib.tflib.network.Network")
        assert set(found.state) == {"version", "name", "static_kwargs", "variables"}
        (name, const), (_, lod) = found.state["variables"]
        assert (name, const.shape, lod) == ("4x4/Const/const", (1, 2, 4, 4), 0.0)


def test_lightnings_classes_as_keys_are_just_names(tmp_path):
    raw = pickle.dumps({"callbacks": {collections.Counter: {"best": 1}}}, 2)
    raw = raw.replace(b"ccollections\nCounter\n", b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n")
    (tmp_path / "model.ckpt").write_bytes(raw)
    name = "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    assert read_file(tmp_path / "model.ckpt") == {"callbacks": {name: {"best": 1}}}


def test_text_of_python_2_is_text(tmp_path):
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}U\x06weightT\x02\x00\x00\x00\xff\xfes.")
    assert read_file(tmp_path / "old.pkl") == {"weight": "\xff\xfe"}


def test_safetensors_of_every_dtype(tmp_path):
    made = {str(dtype): torch.randint(0, 2, (5, 3), dtype=torch.uint8).to(dtype) for dtype in DTYPES}
    made |= {"empty": torch.zeros(0, 4), "scalar": torch.tensor(2.0), "conv/kernel:0 ж": torch.ones(2)}
    save_file(made, tmp_path / "model.safetensors", {"format": "pt"})
    found = read_file(tmp_path / "model.safetensors")
    assert set(found) == set(made)
    assert [name for name in made if not same(found[name], made[name])] == []


def test_the_content_says_which_kind_of_file_it_is(tmp_path):
    made = {"a": torch.ones(2)}
    torch.save(made, tmp_path / "zip.safetensors")
    save_file(made, tmp_path / "tensors.pkl")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(made))
    for name in ("zip.safetensors", "tensors.pkl", "pickle.pt"):
        assert same(read_file(str(tmp_path / name))["a"], made["a"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
        (torch.ones(3, device="meta"), "_rebuild_meta_tensor"),
        (torch.ones(2, dtype=torch.complex128), "ComplexDoubleStorage"),
        (torch.ones(2, dtype=torch.complex64).conj(), "conjugated"),
        (torch.ones(1).expand(5), "overlaps itself"),
        (argparse.ArgumentParser, "argparse.ArgumentParser"),
        (Network(), "Of a whole model, save the state_dict"),
        ({"a": np.array(["text"])}, "text"),
        ({"a": np.array([{}])}, "dtype 'O8'"),
        ({"a": np.zeros(2, [("x", "f4")])}, "dtype 'V4'"),
        ({(1, 2): 3}, "key of type tuple"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_is_refused_by_name(read, content, says):
    with pytest.raises(WeightsError, match=says) as caught:
        read(content)
    assert "checkpoint.pt: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_reading_process_imports_no_torch_and_can_open_nothing(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    script = (
        "import socket, subprocess, sys\nfrom zoo.formats import child\n"
        "child.confine(1000)\n"
        "assert not {'torch', 'pydantic', 'zoo.model'} & set(sys.modules)\n"
        "for attempt in (lambda: open(sys.executable), lambda: open('new', 'w'), lambda: socket.socket(),\n"
        "                lambda: subprocess.run(['true'])):\n"
        "    try: attempt()\n"
        "    except OSError as error: assert error.errno == 24, error\n"
        "    else: raise AssertionError('it could')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_nothing_in_the_current_folder_is_imported(tmp_path, monkeypatch):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    for name in ("numpy", "json", "zoo", "re", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('canary', 'w')\nraise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "json.py"))
    assert same(read_file("a.pt")["a"], torch.ones(2))
    assert not (tmp_path / "canary").exists()
