"""Model folders: what is saved loads bit for bit, and nothing that differs by one tensor, value or byte is accepted."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo.errors import WeightsError
from zoo.storage import sha256
from zoo.weights import golden_hash, save

TRAINED_HERE = ("biggan", "dcgan", "stylegan", "vae")
BUNDLED = zoo.list_models("*.emoji32")
LARGEST = 4 * 2**20      # bytes of a bundled file: the wheel holds four models


@pytest.fixture
def folder(tiny, tmp_path) -> Path:
    return zoo.save(tiny("stylegan").follow(("generator",)), tmp_path / "model")


def rewrite(folder: Path, change, *, manifest: bool = False) -> None:
    """Change the stored tensors; the manifest goes unless it is asked to stay, so that later checks are reached."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if not manifest:
        (folder / "manifest.json").unlink()


@pytest.mark.parametrize("name", ["stylegan", "dcgan"])
@pytest.mark.parametrize("classes", [0, 3])
def test_saved_and_loaded_is_the_same_bit_for_bit(tiny, tmp_path, name, classes):
    model = tiny(name, num_classes=classes).follow(("generator",))
    with torch.no_grad():
        for parameter in model.averages.parameters():
            parameter.mul_(0.9)
    loaded = zoo.load(f"dir:{zoo.save(model, tmp_path / 'model')}")
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert any(key.startswith("averages.generator.") for key in after)
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert torch.equal(model.sample(4, seed=2), loaded.sample(4, seed=2))
    assert loaded.config == model.config
    assert loaded.architecture == name
    assert loaded.adapted == {}


def test_a_loaded_model_is_ready_to_train(folder):
    model = zoo.load(f"dir:{folder}")
    assert all(parameter.requires_grad for parameter in model.generator.parameters())
    assert not any(parameter.requires_grad for parameter in model.averages.parameters())
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"cpu"}


def test_saving_again_writes_the_same_files(folder, tmp_path):
    again = zoo.save(zoo.load(f"dir:{folder}"), tmp_path / "again")
    for name in ("model.safetensors", "README.md"):
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


def test_keys_are_plain_and_files_can_be_read_by_all_who_can_read_the_config(folder):
    names = set(load_file(folder / "model.safetensors"))
    assert {"generator.blocks.4x4.conv1.conv.weight", "averages.generator.w_average", "path_length"} <= names
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "README.md", "manifest.json",
    }  # fmt: skip
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "stylegan"
    assert config["config"]["resolution"] == 16


def test_half_is_smaller_and_almost_the_same(tiny, tmp_path):
    model = tiny("stylegan").follow(("generator",))
    with torch.no_grad():
        for parameter in model.averages.parameters():
            parameter.mul_(0.9)
    whole, half = save(model, tmp_path / "whole"), save(model, tmp_path / "half", half=True)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.45 * sizes[0]
    loaded = zoo.load(f"dir:{half}")
    assert not loaded.averages                                  # the average has taken its network's place
    assert {value.dtype for value in loaded.state_dict().values() if value.is_floating_point()} == {torch.float32}
    difference = (loaded.sample(8, seed=1) - zoo.load(f"dir:{whole}").sample(8, seed=1)).abs().max()
    assert 0 < float(difference) < 1e-2


def test_manifest_binds_files_and_a_golden_sample(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("config.json", "model.safetensors", "README.md"):
        assert manifest["files"][name] == {
            "sha256": sha256(folder / name), "size": (folder / name).stat().st_size,
        }  # fmt: skip
    model = zoo.load(f"dir:{folder}")
    assert manifest["golden"]["sha256"] == golden_hash(model)[0]
    with torch.no_grad():
        model.averages["generator"].blocks["4x4"].const.add_(0.5)
    assert manifest["golden"]["sha256"] != golden_hash(model)[0]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_altered_file_is_found_by_its_hash(folder, name):
    data = bytearray((folder / name).read_bytes())
    at = data.index(b"16") + 1 if name == "config.json" else len(data) - 5
    data[at] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=rf"{name} is damaged or altered"):
        zoo.load(f"dir:{folder}")


def drop(tensors):
    del tensors["generator.w_average"]


def add(tensors):
    tensors["generator.extra"] = torch.zeros(2)


def reshape(tensors):
    tensors["generator.w_average"] = torch.zeros(17)


def retype(tensors):
    tensors["generator.w_average"] = torch.zeros(16, dtype=torch.int64)


def spoil(tensors):
    tensors["generator.w_average"][3] = float("nan")


def overflow(tensors):
    tensors["averages.generator.w_average"][3] = float("inf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"1 tensors are missing, the first is 'generator\.w_average'"),
        (add, r"1 tensors are unknown, the first is 'generator\.extra'"),
        (reshape, r"generator\.w_average is \[17\], this configuration needs \[16\].*adapt=True"),
        (retype, r"generator\.w_average is torch\.int64, expected torch\.float32"),
        (spoil, r"generator\.w_average holds values that are not finite"),
        (overflow, r"averages\.generator\.w_average holds values that are not finite"),
    ],
)
def test_loading_is_strict(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(WeightsError, match=message) as caught:
        zoo.load(f"dir:{folder}")
    assert "\n" not in str(caught.value)


def test_an_unknown_average_is_refused(folder):
    rewrite(folder, lambda tensors: tensors.update({"averages.mapper.weight": torch.zeros(2)}))
    with pytest.raises(zoo.ZooError, match="mapper"):
        zoo.load(f"dir:{folder}")


@pytest.mark.parametrize("half", [False, True])
def test_values_that_are_not_finite_are_not_saved(tiny, tmp_path, half):
    model = tiny("dcgan")
    with torch.no_grad():
        model.generator.to_image.bias[0] = 1e9 if half else float("nan")      # 1e9 is infinite in float16
    with pytest.raises(WeightsError, match=r"generator\.to_image\.bias holds values that are not finite"):
        save(model, tmp_path / "model", half=half)
    assert not (tmp_path / "model").exists()


def test_a_cut_file_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    (folder / "manifest.json").unlink()
    with pytest.raises(WeightsError, match="no readable safetensors file"):
        zoo.load(f"dir:{folder}")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(WeightsError):
        zoo.load(f"dir:{folder}")


def test_a_folder_that_is_none_and_a_revision_of_one_are_refused(folder, tmp_path):
    with pytest.raises(WeightsError, match="is no folder"):
        zoo.load(f"dir:{tmp_path / 'nothing'}")
    with pytest.raises(WeightsError, match="has no revisions"):
        zoo.load(f"dir:{folder}", revision="main")
    with pytest.raises(WeightsError, match="has no revisions"):
        zoo.load("dcgan", revision="main")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema version 99.*update genzoo"),
        ({"architecture": "dcgam"}, "dcgam"),
        ({"auto_map": {"code": "model.py"}}, "auto_map"),
        ({"config": {"resolution": "16"}}, "resolution"),
        ({"config": {"resolution": 16, "depth": 3}}, "depth"),
    ],
)
def test_a_config_says_what_it_may_and_no_more(folder, change, message):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    (folder / "manifest.json").unlink()
    with pytest.raises(zoo.ZooError, match=message):
        zoo.load(f"dir:{folder}")


def test_device(folder):
    assert zoo.load(f"dir:{folder}", device="cpu").device.type == "cpu"
    assert zoo.load(f"dir:{folder}", device=torch.device("meta")).device.type == "meta"
    with pytest.raises(zoo.ZooError, match="device='nowhere' cannot be used"):
        zoo.load(f"dir:{folder}", device="nowhere")


# The bundled weights.


def neighbours_correlate(images: torch.Tensor) -> float:
    pairs = torch.stack([images[..., 1:].flatten(), images[..., :-1].flatten()])
    return float(torch.corrcoef(pairs)[0, 1])


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_every_built_in_architecture_has_bundled_weights():
    assert {f"{name}.emoji32" for name in TRAINED_HERE} <= set(BUNDLED)


@pytest.mark.parametrize("name", [name.partition(".")[0] for name in BUNDLED])
def test_default_weights_load_offline_and_make_pictures(offline, name):
    model = zoo.load(name)
    assert model.origin["name"] == f"{name}.emoji32"
    assert model.origin["license"] == "Apache-2.0"
    images = model.sample(32, seed=0)
    assert images.shape == (32, 3, 32, 32)
    assert bool(torch.isfinite(images).all())
    assert neighbours_correlate(images) > 0.75                  # noise has 0
    corners = images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float((corners > 0.5).float().mean()) > 0.7          # emoji stand on white
    assert float(images.std(0).mean()) > 0.15                   # and are not all the same


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_files_are_whole_small_and_free_of_local_paths(name):
    architecture = name.partition(".")[0]
    folder = Path(__file__).parent.parent / "plugins" / f"zoo_{architecture}" / "weights" / "emoji32"
    files = {path.name: path for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "README.md", "manifest.json"} == set(files)
    assert all(path.stat().st_size <= LARGEST for path in files.values())
    manifest = json.loads(files["manifest.json"].read_text())
    assert manifest["files"]["README.md"]["sha256"] == sha256(files["README.md"])
    assert manifest["files"]["model.safetensors"]["sha256"] == sha256(files["model.safetensors"])
    config = json.loads(files["config.json"].read_text())
    assert config["architecture"] == architecture
    for text in (files["config.json"].read_text(), files["README.md"].read_text()):
        assert not any(place in text for place in ("/home/", "/tmp/", "/work/", "/root/"))
    assert all(value.dtype != torch.float32 for value in load_file(files["model.safetensors"]).values())
