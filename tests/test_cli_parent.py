"""``--parent``: commands that load a delta are told what it is added to, as `zoo.load(parent=)` is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import zoo
from zoo.cli import main
from zoo.images import grid

SHORT = ["--kimg", "0.016", "--batch", "8", "--on-collapse", "off"]
DATA = "emoji:smileys-emotion"


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> tuple[Path, str, str]:
    """A run whose parent lay in a folder, its delta's name, and the parent's where that lies by now."""
    from conftest import TINY

    folder = tmp_path_factory.mktemp("deltas")
    torch.manual_seed(0)
    model = zoo.create("dcgan", **TINY["dcgan"])
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(10)      # else all images are grey
    zoo.save(model.follow(("generator",)), folder / "parent")
    command = ["finetune", f"dir:{folder}/parent", DATA, "--out", str(folder / "run"), "--method", "lora:rank=2"]
    assert main([*command, *SHORT]) == 0
    (folder / "parent").rename(folder / "elsewhere")
    return folder / "run", f"dir:{folder}/run/delta", f"dir:{folder}/elsewhere"


def refused(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_delta_is_sampled_on_the_parent_that_is_given(places, tmp_path, capsys):
    run, delta, parent = places
    out = tmp_path / "a.png"
    assert "give them as parent='dir:PATH'" in refused(capsys, "sample", delta, "--out", str(out))
    assert "made on other weights" in refused(capsys, "sample", delta, "--out", str(out), "--parent", "dcgan")
    assert not out.exists()
    assert main(["sample", delta, "-n", "5", "--seed", "3", "--out", str(out), "--parent", parent]) == 0
    with Image.open(out) as picture:
        assert picture.tobytes() == grid(zoo.load(f"dir:{run}/model").sample(5, seed=3)).tobytes()


def test_info_checks_a_delta_with_its_parent(places, capsys):
    _, delta, parent = places
    refused(capsys, "info", delta)
    assert main(["info", delta, "--parent", parent, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == "dcgan"


def test_a_delta_is_evaluated_as_the_whole_model_is(places, capsys):
    run, delta, parent = places
    command = [DATA, "--features", "pixels", "--samples", "24", "--metrics", "kid", "--force", "--json"]
    values = []
    for name in ([delta, "--parent", parent], [f"dir:{run}/model"]):
        assert main(["evaluate", *name, *command]) == 0
        values.append(json.loads(capsys.readouterr().out)["values"])
    assert values[0] == values[1]
    said = refused(capsys, "evaluate", str(run), *command, "--parent", parent)
    assert f"holds a whole model; leave --parent out, or give {run}/delta" in said


def test_a_delta_is_tuned_further(places, tmp_path, capsys):
    _, delta, parent = places
    command = ["finetune", delta, DATA, *SHORT, "--out", str(tmp_path / "run")]
    refused(capsys, *command)
    assert main([*command, "--parent", parent]) == 0
    fresh = zoo.Run(tmp_path / "run").settings["fresh"]
    assert fresh == ["discriminator"]      # a delta comes without
    larger = [*command[:-1], str(tmp_path / "larger"), "--parent", parent, "--set", "resolution=32"]
    assert main(larger) == 0
    assert zoo.Run(tmp_path / "larger").model.config.resolution == 32


@pytest.mark.parametrize("prefix", ["dir:", ""])
def test_a_delta_that_others_cannot_load_is_published_whole(places, tmp_path, monkeypatch, capsys, prefix):
    run, delta, parent = places
    monkeypatch.chdir(tmp_path)
    name = prefix + delta.removeprefix("dir:")
    refused(capsys, "publish", name, "acme/small", "--dry-run")
    assert main(["publish", name, "acme/small", "--dry-run", "--parent", parent]) == 0
    published, model = zoo.load(f"dir:{tmp_path}/acme--small"), zoo.load(f"dir:{run}/model")
    assert torch.equal(published.sample(2, seed=1), model.sample(2, seed=1))


def test_a_model_that_is_no_delta_needs_no_parent(tmp_path):
    for name, more in (("a.png", []), ("b.png", ["--parent", "stylegan"])):      # as in zoo.load
        assert main(["sample", "dcgan", "-n", "2", "--out", str(tmp_path / name), *more]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
