"""Projected discriminators: on any model with a discriminator, frozen where they must be, and kept on disk."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest
import torch
from torch import nn

import zoo
from zoo import registry
from zoo.critics import training_recipe
from zoo.data import open_images
from zoo.images import save_grid
from zoo.losses import adversarial
from zoo.noise import Noise
from zoo.projected import Features, ProjectedConfig, ProjectedDiscriminator, project, projected_recipe
from zoo.recipe import Batch
from zoo.training.optimisers import players
from zoo.transfer import METHODS
from zoo.weights import build, load, save

SMALL = {"resolution": 32, "channels": 8, "pretrained": False}      # settings of a critic that is quick on a CPU


@pytest.fixture
def data(tmp_path):
    for index in range(8):
        folder = tmp_path / "data" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        save_grid(images(8)[index : index + 1], folder / f"{index}.png")
    return tmp_path / "data"


def images(n=4, channels=3, size=16):
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_layers_and_sizes_are_the_authors():
    with torch.device("meta"):
        critic = ProjectedDiscriminator(ProjectedConfig(), 0, pretrained=False)
        x = torch.zeros(2, 3, 224, 224)
        maps = critic.features(x)
        mixed = critic.mixing(maps)
        logits = critic(x)
    assert [tuple(features.shape[1:]) for features in maps] == [(24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7)]
    assert [tuple(features.shape[1:]) for features in mixed] == [
        (64, 112, 112), (64, 56, 56), (128, 28, 28), (256, 14, 14),
    ]  # fmt: skip
    widths = [[layer.conv.weight.shape[:2] for layer in head.down] for head in critic.heads.levels]
    assert [[(int(a), int(b)) for b, a in head] for head in widths] == [
        [(64, 64), (64, 128), (128, 256), (256, 512)], [(64, 128), (128, 256), (256, 512)],
        [(128, 256), (256, 512)], [(256, 512)],
    ]  # fmt: skip
    assert logits.shape == (2, 4 * 4 * 4)      # four heads, 4x4 places each


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_colours_are_judged_and_gradients_reach_the_image(tiny, channels):
    model = project(tiny("dcgan", channels=channels), **SMALL)
    x = images(channels=channels).requires_grad_(True)
    logits = model.discriminator(x)
    assert logits.shape == (4, 4)
    logits.sum().backward()
    assert (x.grad.abs().sum((2, 3)) > 0).all()
    assert torch.allclose(model.eval().discriminator(x).mean(1, keepdim=True), model.logits(x.detach()))


def test_the_pretrained_network_sees_what_it_was_trained_to_see():
    """Its maps are those of timm's model with the same weights, whose pooled features tell photographs apart."""
    from zoo.backbones import LITE0, backbone

    features = Features(ProjectedConfig(resolution=64), pretrained=True).eval()
    whole = backbone(LITE0, num_classes=0).eval()
    x = images(2, size=64)
    with torch.no_grad():
        last = features(x)[-1]
        wanted = whole.blocks(whole.bn1(whole.conv_stem(x)))      # this network is normalised by mean and std 0.5
    assert torch.allclose(last, wanted, atol=1e-4)
    assert not torch.allclose(last, Features(ProjectedConfig(resolution=64), pretrained=False).eval()(x)[-1], atol=1e-2)


def test_only_the_heads_are_trained_whatever_the_recipe(tiny, data, tmp_path):
    model = project(tiny("dcgan"), **SMALL)
    assert {name.split(".")[0] for name, _ in model.discriminator.named_parameters()} == {"heads"}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    zoo.train(model, data, kimg=0.016, batch=4, out=tmp_path / "run")
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    still = [name for name in before if name.startswith(("discriminator.features.", "discriminator.mixing."))]
    assert len(still) > 100
    assert not moved & set(still)      # batch norms' statistics included
    assert {"discriminator.heads.levels.0.judge.parametrizations.weight.original", "generator.head.weight"} <= moved
    assert any(name.startswith("discriminator.heads.") and "norm" in name for name in moved)


def test_the_frozen_network_stays_in_evaluation_mode(tiny):
    model = project(tiny("dcgan"), **SMALL).train()
    norms = [part for part in model.discriminator.modules() if isinstance(part, nn.BatchNorm2d)]
    assert {norm.training for norm in norms} == {True, False}
    frozen = [part for part in model.discriminator.features.modules() if isinstance(part, nn.BatchNorm2d)]
    assert frozen
    assert not any(norm.training for norm in frozen)
    assert not any(norm.training for norm in model.eval().discriminator.modules())


def test_it_is_kept_when_saved_and_loaded(tiny, tmp_path):
    model = project(tiny("stylegan", num_classes=3), **SMALL)
    labels = [0, 1, 2, 0]
    folder = save(model, tmp_path / "model")
    written = json.loads((folder / "config.json").read_text())
    assert written["critic"] == {
        "kind": "projected", "backbone": "tf_efficientnet_lite0", "resolution": 32, "channels": 8,
    }  # fmt: skip
    loaded = load(folder)
    assert loaded.critic == model.critic
    assert torch.equal(loaded.logits(images(), labels), model.logits(images(), labels))
    wider = load(folder, adapt=True, num_classes=5)
    assert torch.allclose(wider.logits(images(), labels), model.logits(images(), labels), atol=1e-5)
    assert wider.logits(images(), [4] * 4).isfinite().all()
    assert not [name for name, what in wider.adapted.items() if what == "re-initialised" and name.startswith("disc")]
    assert "critic" not in json.loads((save(tiny("dcgan"), tmp_path / "plain") / "config.json").read_text())


@pytest.mark.parametrize(
    ("critic", "message"),
    [
        ({"kind": "other"}, "kind='other'"),
        ({"backbone": "hf-hub:someone/weights"}, "String should match"),
        ({"backbone": "../resnet18"}, "String should match"),
        ({"backbone": "resnet1o1"}, "Did you mean 'resnet101'"),
        ({"backbone": "vit_tiny_patch16_224"}, "gives maps of 1/16.*needs 1/4"),
        ({"resolution": 2**20}, "less than or equal to 1024"),
        ({"resolution": 100}, "multiple of 32"),
        ({"channels": "64"}, "valid integer"),
        ({"script": "run me"}, "Extra inputs"),
    ],
)
def test_a_strangers_critic_is_refused_in_one_line(tiny, tmp_path, critic, message):
    folder = save(project(tiny("dcgan"), **SMALL), tmp_path / "model")
    written = json.loads((folder / "config.json").read_text())
    written["critic"] |= critic
    (folder / "config.json").write_text(json.dumps(written))
    with pytest.raises(zoo.ZooError, match=message) as caught:
        load(folder, verify=False)
    assert "\n" not in str(caught.value)


def test_tensors_must_be_those_of_the_critic(tiny, tmp_path):
    folder = save(project(tiny("dcgan"), **SMALL), tmp_path / "model")
    written = json.loads((folder / "config.json").read_text())
    del written["critic"]
    (folder / "config.json").write_text(json.dumps(written))
    with pytest.raises(zoo.ZooError, match="tensors are missing"):
        load(folder, verify=False)


def test_a_critic_is_part_of_the_sketch_that_a_model_is_sized_by():
    sizes = [sum(tensor.numel() for tensor in build("dcgan", {"resolution": 16}, device="meta", critic=critic)
                 .discriminator.state_dict().values()) for critic in (None, {"channels": 8})]  # fmt: skip
    assert sizes[1] > 3_000_000 > sizes[0]


# Recipes.


@pytest.mark.parametrize("name", ["dcgan", "stylegan", "biggan", "r3gan"])
def test_any_recipe_is_fitted(name):
    small = {"width": 4} if name == "biggan" else {"channel_base": 128, "channel_max": 16} if name != "dcgan" else {}
    model = project(zoo.create(name, resolution=16, **small), **SMALL)
    recipe, own = training_recipe(model), model.recipe()
    assert {phase.settings["loss"] for phase in recipe.phases if phase.name != "path_length"} == {"hinge"}
    assert [phase.name for phase in recipe.phases] == [phase.name for phase in own.phases if phase.name != "r1"]
    judges = [phase for phase in recipe.phases if phase.trains == ("discriminator",)]
    assert [recipe.lr * phase.rate for phase in judges] == pytest.approx([2e-4])
    makers = [(phase.rate, phase.after, phase.every) for phase in recipe.phases if phase.trains == ("generator",)]
    assert makers == [(phase.rate, phase.after, phase.every) for phase in own.phases if phase.trains == ("generator",)]
    assert recipe.augment == ("color", "translation", "cutout")
    model.train()
    for phase in recipe.phases:
        model.requires_grad_(False)
        model.get_submodule(phase.trains[0]).requires_grad_(True)
        terms = phase.loss(model, Batch(images(), None, Noise(0), 0.5))
        assert not {"r1", "r2"} & set(terms.minimise)
        terms.total().backward()
    assert players(model, recipe, scale_gradients=False)[("discriminator",)].parameters


def test_another_loss_may_be_kept(tiny):
    recipe = projected_recipe(tiny("dcgan").recipe(), adversarial("nonsaturating"))
    assert [phase.settings["loss"] for phase in recipe.phases] == ["nonsaturating", "nonsaturating"]


def test_freeze_d_and_augmentation_go_with_it(tiny, data, tmp_path):
    model = project(tiny("dcgan"), **SMALL)
    recipe = METHODS["freeze_d"].apply(model, training_recipe(model))
    trained = players(model, recipe, scale_gradients=False)[("discriminator",)].parameters
    assert set(trained) == {name for name, _ in model.named_parameters() if name.startswith("discriminator.heads.")}
    seen = []
    model.discriminator.features.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    zoo.train(model, data, kimg=0.004, batch=4, out=tmp_path / "run", recipe=recipe, settings={"augment": ("cutout",)})
    during = [x for x in seen if x.shape[0] == 4]
    assert during
    assert all(float((x == 0).float().mean()) > 0.05 for x in during)      # each image has its grey square


def test_a_run_resumes_to_the_same_weights(tiny, data, tmp_path):
    options = {"kimg": 0.016, "batch": 4, "seed": 1, "checkpoint_kimg": 0.008}
    whole = project(tiny("dcgan", num_classes=2), **SMALL)      # `tiny` seeds torch, so heads begin alike
    zoo.train(whole, data, out=tmp_path / "whole", **options)
    zoo.train(project(tiny("dcgan", num_classes=2), **SMALL), data, out=tmp_path / "cut", **{**options, "kimg": 0.008})
    resumed = project(tiny("dcgan", num_classes=2), **SMALL)
    with pytest.raises(zoo.ZooError, match=r"critic=|recipe="):
        zoo.train(tiny("dcgan", num_classes=2), data, out=tmp_path / "cut", resume=True, **options)
    zoo.train(resumed, data, out=tmp_path / "cut", resume=True, **options)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    saved = load(tmp_path / "cut" / "model")
    assert saved.critic == resumed.critic
    assert json.loads((tmp_path / "cut" / "run.json").read_text())["critic"]["channels"] == 8


def test_finetuning_a_saved_one_goes_on_with_its_critic(tiny, data, tmp_path):
    folder = save(project(tiny("dcgan"), **SMALL), tmp_path / "model")
    run = zoo.finetune(f"dir:{folder}", data, kimg=0.008, out=tmp_path / "run", settings={"batch": 4})
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run.settings == settings
    assert [phase["settings"]["loss"] for phase in settings["recipe"]["phases"]] == ["hinge", "hinge"]
    assert load(tmp_path / "run" / "model").critic is not None


def test_what_has_no_discriminator_is_refused():
    with pytest.raises(zoo.ZooError, match="vae has no discriminator"):
        project(zoo.create("vae", resolution=8, width=4, latent=4), **SMALL)


def test_weights_that_came_without_a_discriminator_take_one(tiny):
    model = project(tiny("dcgan").without(["discriminator"]), **SMALL)
    assert model.absent == ()
    assert model.complete() == model.fresh == ("discriminator",)
    assert model.logits(images()).isfinite().all()


# A stranger's architecture, with a loss that does not say what it is made of.

PLUGIN = """
    from zoo.plugin import Architecture, hookimpl

    @hookimpl
    def zoo_architectures():
        return [Architecture("strange", model="strange_model:Strange", summary="a stranger")]
"""
MODELS = """
    import torch
    from torch import nn
    from zoo import Model, Phase, Recipe, Terms

    def judge(model, batch):
        fake = model.generator(model.latent(len(batch), batch.noise)).detach()
        return Terms({"own": (model.discriminator(fake) - model.discriminator(batch.images)).tanh().mean()})

    def make(model, batch):
        return Terms({"own": -model.discriminator(model.generator(model.latent(len(batch), batch.noise))).mean()})

    class Strange(Model):
        def __init__(self, config):
            super().__init__(config)
            self.latent_size = 4
            size = (config.channels, config.resolution, config.resolution)
            self.generator = nn.Sequential(nn.Linear(4, size[0] * size[1] * size[2]), nn.Unflatten(1, size))
            self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(size[0] * size[1] * size[2], 1))

        def generate(self, z, labels, *, psi, chance):
            return self.generator(z)

        def recipe(self):
            return Recipe((Phase("judge", ("discriminator",), judge), Phase("make", ("generator",), make)), batch=4)
"""


def test_a_strangers_model_takes_it_too(data, tmp_path, monkeypatch):
    info = tmp_path / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zoo]\nstrange = strange_plugin\n")
    (tmp_path / "strange_plugin.py").write_text(dedent(PLUGIN))
    (tmp_path / "strange_model.py").write_text(dedent(MODELS))
    monkeypatch.syspath_prepend(tmp_path)
    registry.refresh()
    try:
        model = project(zoo.create("strange", resolution=16), **SMALL)
        zoo.train(model, data, kimg=0.008, out=tmp_path / "run")
        again = load(tmp_path / "run" / "model")
        assert again.critic == model.critic
        assert len(open_images(data, resolution=16, channels=3)) == 8
        assert all(bool(value.isfinite().all()) for value in again.parameters())
    finally:
        monkeypatch.undo()
        registry.refresh()
