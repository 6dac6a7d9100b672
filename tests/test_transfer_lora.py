"""Low-rank fine-tuning: it begins at the parent, its merged weights are parent plus delta, and a delta goes round."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import zoo
from zoo.lowrank import DOWN, UP, attach, merge, merged
from zoo.storage import read
from zoo.transfer import METHODS
from zoo.weights import load

SHORT = {"batch": 4, "kimg": 0.016}      # four steps
DATA = "emoji:smileys-emotion"


@pytest.mark.parametrize("name", ["dcgan", "stylegan", "biggan"])
def test_training_begins_at_the_parent_exactly(name):
    model = zoo.load(name)
    before = model.sample(3, seed=0, labels=model.each_class(3))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    METHODS["lora"].apply(model, model.recipe())
    assert torch.equal(model.sample(3, seed=0, labels=model.each_class(3)), before)
    merge(model)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert torch.equal(model.sample(3, seed=0, labels=model.each_class(3)), before)


def test_a_weight_is_the_parents_plus_the_product(tiny):
    model = tiny("dcgan")
    before = {key: value.detach().clone() for key, value in model.generator.named_parameters()}
    attach(model, ("generator",), (), 2)
    z = torch.randn(3, model.latent_size)
    factors = {}
    with torch.no_grad():
        for name, value in model.generator.named_parameters():
            if name.endswith(UP):
                value.normal_(generator=torch.Generator().manual_seed(len(name)))
                factors[name.partition(".parametrizations")[0] + ".weight"] = name.removesuffix(UP)
    parameters = dict(model.generator.named_parameters())
    expected = {
        weight: before[weight].double() + (parameters[start + UP].double() @ parameters[start + DOWN].double()).view(
            before[weight].shape)
        for weight, start in factors.items()
    }  # fmt: skip
    assert set(factors) == {name for name, value in before.items() if value.ndim > 1}
    during = model.eval().generator(z)
    merge(model)
    for name, value in model.generator.named_parameters():
        wanted = expected.get(name, before[name].double())
        assert torch.allclose(value.double(), wanted, atol=1e-6), name
    assert torch.allclose(model.generator(z), during, atol=1e-5)      # the forward of training saw the same weights
    up, down = torch.tensor([[2.0], [3.0]]), torch.tensor([[1.0, 10.0]])
    assert merged(torch.ones(2, 2), up, down).tolist() == [[3, 21], [4, 31]]


@pytest.mark.parametrize("name", ["dcgan", "stylegan"])
def test_only_the_factors_move_and_the_delta_gives_the_same_samples(tmp_path, name):
    parent = zoo.load(name)
    before = {key: value.detach().clone() for key, value in parent.named_parameters()}
    run = zoo.finetune(name, DATA, out=tmp_path / "run", method="lora:rank=3", **SHORT)
    found = run.model
    for key, value in found.averages["generator"].named_parameters():
        change = value - before[f"generator.{key}"]
        if value.ndim < 2:
            assert not change.any(), key
        else:
            rounding = 1e-6 * float(before[f"generator.{key}"].norm())
            assert torch.linalg.matrix_rank(change.flatten(1).double(), atol=rounding, rtol=0.0) <= 3, key
    assert any(bool((value - before[f"generator.{key}"]).any()) for key, value in found.generator.named_parameters())

    delta = zoo.load(f"dir:{run.directory}/delta")
    assert torch.equal(delta.sample(5, seed=3), found.sample(5, seed=3))
    assert delta.absent == ("discriminator",)
    small, whole = (run.directory / folder / "model.safetensors" for folder in ("delta", "model"))
    assert small.stat().st_size < 0.1 * whole.stat().st_size
    assert all(key.startswith("generator.") for key in read(run.directory / "delta").tensors)
    golden = [json.loads((run.directory / part / "manifest.json").read_text())["golden"] for part in ("delta", "model")]
    assert golden[0] == golden[1]
    settings = json.loads((run.directory / "delta" / "config.json").read_text())
    assert settings["parent"]["name"] == f"{name}.emoji32"
    assert settings["origin"]["method"] == "lora"


def test_a_critic_may_be_trained_by_factors_too(tmp_path):
    run = zoo.finetune("dcgan", DATA, out=tmp_path / "run", method="lora:rank=2,critic=true", **SHORT)
    delta = zoo.load(f"dir:{run.directory}/delta")
    images = delta.sample(4, seed=0)
    assert torch.equal(delta.logits(images), run.model.logits(images))
    assert not delta.absent


def test_a_delta_on_a_folder_is_told_where_that_lies(tmp_path, tiny):
    parent = f"dir:{zoo.save(tiny('dcgan'), tmp_path / 'parent')}"
    run = zoo.finetune(parent, DATA, out=tmp_path / "run", method="lora", **SHORT)
    delta = f"dir:{run.directory}/delta"
    with pytest.raises(zoo.ZooError, match=r"folder \(dir:parent\), sha256 [0-9a-f]{12}: give.*parent='dir:PATH'"):
        zoo.load(delta)
    assert torch.equal(zoo.load(delta, parent=parent).sample(2, seed=0), run.model.sample(2, seed=0))
    with pytest.raises(zoo.ZooError, match=r"made on other weights than dir:parent holds"):
        zoo.load(delta, parent="dcgan")
    # A delta of a delta is followed to the whole model.
    second = zoo.finetune(run.model, DATA, out=tmp_path / "second", method="lora:rank=1", **SHORT)
    with pytest.raises(zoo.ZooError, match="parent="):
        zoo.load(f"dir:{second.directory}/delta")
    third = zoo.load(f"dir:{second.directory}/delta", parent=f"dir:{run.directory}/model")
    assert torch.equal(third.sample(2, seed=0), second.model.sample(2, seed=0))


def test_a_delta_is_published_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = zoo.finetune("dcgan", DATA, out=tmp_path / "run", method="lora", **SHORT)
    done = zoo.publish(str(run.directory / "delta"), "somebody/small", dry_run=True)
    assert done.directory is not None
    assert (done.directory / "model.safetensors").stat().st_size < 300_000
    assert torch.equal(zoo.load(f"dir:{done.directory}").sample(2, seed=1), run.model.sample(2, seed=1))


def test_a_damaged_delta_is_refused_in_one_line(tmp_path):
    from safetensors.torch import load_file, save_file

    run = zoo.finetune("dcgan", DATA, out=tmp_path / "run", method="lora", **SHORT)
    tensors = load_file(run.directory / "delta" / "model.safetensors")
    first = next(name for name in tensors if name.endswith(UP))
    damages = {
        "incomplete": {name: value for name, value in tensors.items() if name != first.replace(UP, DOWN)},
        "another shape": {**tensors, first: torch.zeros(3, 2)},
        "parent's shape": {**tensors, "generator.norm.running_mean": torch.zeros(2)},
    }
    for message, changed in damages.items():
        folder = tmp_path / "damaged"
        shutil.copytree(run.directory / "delta", folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink(missing_ok=True)
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(zoo.ZooError, match=message) as caught:
            zoo.load(f"dir:{folder}")
        assert "\n" not in str(caught.value)


def test_no_delta_is_claimed_where_none_can_be(tmp_path):
    with pytest.raises(zoo.ZooError, match=r"holds no delta.*RUN/delta"):
        zoo.save(zoo.load("dcgan"), tmp_path / "delta", delta=True)
    adapted = zoo.load("dcgan", adapt=True, num_classes=2)
    run = zoo.finetune(adapted, "emoji:activities,flags,symbols".replace(",flags", ""), out=tmp_path / "run",
                       method="lora", **SHORT)  # fmt: skip
    assert not (run.directory / "delta").exists()      # nobody could load it: the parent has no classes
    assert run.model.config.num_classes == 2
    plain = zoo.finetune("dcgan", DATA, out=tmp_path / "plain", method="lora", **SHORT)
    with pytest.raises(zoo.ZooError, match="holds a delta alone"):
        load(plain.directory / "delta")


def test_a_model_that_was_saved_with_its_delta_loads_the_same(tmp_path):
    model = zoo.load("dcgan")
    zoo.finetune(model, DATA, out=tmp_path / "run", method="lora", **SHORT)
    folder = zoo.save(model, tmp_path / "delta", delta=True)      # the model that was trained in place holds it still
    assert torch.equal(zoo.load(f"dir:{folder}").sample(2, seed=1), model.sample(2, seed=1))
