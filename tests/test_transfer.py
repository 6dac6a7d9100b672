"""Fine-tuning through the public surface: which weights stand still, what auto chooses, and what is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import zoo
from zoo import transfer
from zoo.data import open_images
from zoo.transfer import FEW, choice
from zoo.transfer.structure import frozen_patterns

SHORT = {"batch": 4, "kimg": 0.016}      # four steps
DATA = "emoji:smileys-emotion"

# The first half of the discriminator's blocks, counted from the image, and what comes before them.
NEAR_THE_IMAGE = {
    "dcgan": ("discriminator.from_image.", "discriminator.blocks.0."),
    "stylegan": ("discriminator.from_image.", "discriminator.blocks.32x32.", "discriminator.blocks.16x16."),
}


def folder_of(model: zoo.Model, path: Path) -> str:
    return f"dir:{zoo.save(model.follow(model.recipe().averaged), path)}"


@pytest.mark.parametrize("name", sorted(NEAR_THE_IMAGE))
def test_freeze_d_holds_exactly_the_half_next_to_the_image(tmp_path, name):
    model = zoo.load(name)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    run = zoo.finetune(model, DATA, out=tmp_path / "run", method="freeze_d", **SHORT)
    still = {key for key, value in model.named_parameters() if key in before and torch.equal(value, before[key])}
    expected = {key for key in before if key.startswith(NEAR_THE_IMAGE[name])}
    assert still == expected
    phases = {phase["name"]: phase["frozen"] for phase in run.settings["recipe"]["phases"]}
    assert phases["generator"] == []
    assert phases["discriminator"] == [f"{prefix}*" for prefix in NEAR_THE_IMAGE[name]]
    assert all(value.requires_grad for key, value in run.model.named_parameters() if not key.startswith("averages."))


@pytest.mark.parametrize(
    ("kimg", "parts", "batch"), [(64, 1, 64), (63.9, 1, 32), (16, 1, 16), (0.1, 1, 8), (6, 2, 16), (6, 5, 64)]
)
def test_a_short_training_has_smaller_batches(kimg, parts, batch):
    assert choice.short_batch(64, kimg, parts) == batch
    assert choice.short_batch(60, 0.1) == 15      # an odd one is not halved


def test_a_short_fine_tune_takes_smaller_batches_unless_told(tiny, tmp_path, caplog):
    own = tiny("dcgan").recipe().batch
    parent = folder_of(tiny("dcgan"), tmp_path / "parent")

    def batch_of(name, **options):
        run = zoo.finetune(parent, DATA, out=tmp_path / name, method="full", kimg=0.008, **options)
        return run.settings["recipe"]["batch"]

    assert batch_of("unsaid") == 8
    assert f"Batch 8, as 0.008 kimg would be few steps with the recipe's {own}." in caplog.text
    assert batch_of("parts", accumulate=2) == 16
    caplog.clear()
    assert batch_of("said", batch=own) == own
    assert batch_of("set", settings={"batch": 4}) == 4
    assert batch_of("whole", recipe=tiny("dcgan").recipe()) == own
    assert "Batch" not in caplog.text


def test_full_moves_everything(tmp_path):
    model = zoo.load("dcgan")
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    run = zoo.finetune(model, DATA, out=tmp_path / "run", method="full", **SHORT)
    assert not [key for key, value in model.named_parameters() if key in before and torch.equal(value, before[key])]
    assert (run.settings["method"], run.settings["method_reason"]) == ("full", "asked for")


def test_auto_says_why_and_augments_few_images(tiny, tmp_path):
    run = zoo.finetune(folder_of(tiny("dcgan"), tmp_path / "parent"), DATA, out=tmp_path / "run", **SHORT)
    assert run.settings["data"]["images"] < FEW
    assert run.settings["method"] == "full"
    assert run.settings["method_reason"].endswith("shown 0 times, so every weight may move")
    assert run.settings["recipe"]["augment"] == ["translation", "cutout"]
    assert run.settings["recipe"]["ema_kimg"] == pytest.approx(0.0016)
    assert json.loads((run.directory / "run.json").read_text())["method"] == "full"


def test_auto_freezes_where_few_images_are_shown_often(tiny, monkeypatch):
    images, recipe = open_images(DATA, resolution=16, channels=3), tiny("dcgan").recipe()
    often = transfer.OFTEN * len(images) / 1000
    assert transfer.choose(recipe, images, often)[0] == "full"
    method, reason = transfer.choose(recipe, images, 1.02 * often)
    assert method == "freeze_d"
    assert reason == f"each of {len(images)} images is shown 1020 times, so the critic would overfit"
    monkeypatch.setattr(choice, "FEW", len(images))
    assert transfer.choose(recipe, images, 1.02 * often)[0] == "full"


def test_an_autoencoder_has_no_critic_to_freeze(tmp_path):
    torch.manual_seed(0)
    model = zoo.create("vae", resolution=16, width=4, widest=8, latent=4, prior_width=8)
    name = folder_of(model, tmp_path / "parent")
    run = zoo.finetune(name, DATA, out=tmp_path / "run", **SHORT)
    assert (run.settings["method"], run.settings["method_reason"]) == ("full", "the architecture has no critic")
    assert run.settings["recipe"]["augment"] == []
    with pytest.raises(zoo.ZooError, match=r"vae has no critic.*use method full"):
        zoo.finetune(name, DATA, out=tmp_path / "other", method="freeze_d", **SHORT)
    assert not (tmp_path / "other").exists()


def test_an_unknown_method_is_refused_with_the_possible_ones(tmp_path):
    with pytest.raises(zoo.ZooError, match=r"'freezed'.*Did you mean 'freeze_d'.*auto, full"):
        zoo.finetune("dcgan", DATA, out=tmp_path / "run", method="freezed", **SHORT)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def three_classes(tmp_path) -> Path:
    from zoo.images import save_grid

    chance = torch.Generator().manual_seed(0)
    for index in range(12):
        path = tmp_path / "pictures" / f"kind{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_grid(torch.rand(1, 3, 16, 16, generator=chance) * 2 - 1, path)
    return tmp_path / "pictures"


@pytest.mark.parametrize("name", ["dcgan", "stylegan"])
def test_a_named_model_is_fitted_to_the_classes_of_the_data(tiny, tmp_path, three_classes, name):
    parent = folder_of(tiny(name, num_classes=5), tmp_path / "parent")
    run = zoo.finetune(parent, three_classes, out=tmp_path / "run", **SHORT)
    assert run.model.config.num_classes == 3
    assert run.settings["config"]["num_classes"] == 3
    assert run.settings["adapted"]
    assert all(what.startswith("trimmed") for what in run.settings["adapted"].values())
    assert run.model.sample(labels=[0, 1, 2]).shape[0] == 3


def test_a_given_model_is_not_exchanged_for_another(tiny, tmp_path, three_classes):
    with pytest.raises(zoo.ZooError, match=r"5 classes.*has 3.*adapt=True, num_classes=3"):
        zoo.finetune(tiny("dcgan", num_classes=5), three_classes, out=tmp_path / "run", **SHORT)


def test_a_model_without_classes_stays_without_on_sorted_data(tiny, tmp_path, three_classes):
    run = zoo.finetune(tiny("dcgan"), three_classes, out=tmp_path / "run", **SHORT)
    assert run.model.config.num_classes == 0
    assert run.settings["adapted"] == {}


def test_the_parent_and_its_licence_are_remembered(tmp_path):
    run = zoo.finetune("dcgan", DATA, out=tmp_path / "run", **SHORT)
    parent = run.settings["parent"]
    assert (parent["name"], parent["license"]) == ("dcgan.emoji32", "Apache-2.0")
    origin = json.loads((run.directory / "model" / "config.json").read_text())["origin"]
    assert origin["license"] == "Apache-2.0"
    assert origin["parent"]["name"] == "dcgan.emoji32"
    assert origin["method"] == "full"
    assert origin["data"]["name"] == DATA
    card = (run.directory / "model" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "dcgan.emoji32" in card


def test_a_grandchild_names_its_parent_and_keeps_the_licence(tmp_path):
    child = zoo.finetune("dcgan", DATA, out=tmp_path / "child", **SHORT)
    run = zoo.finetune(f"dir:{child.directory}/model", "emoji:symbols", out=tmp_path / "grandchild", **SHORT)
    origin = run.model.origin
    assert origin["license"] == "Apache-2.0"
    assert origin["data"]["name"] == "emoji:symbols"
    assert origin["parent"]["data"]["name"] == DATA
    assert "parent" not in origin["parent"]                     # one step back; the chain is in the parents' own files
    assert str(tmp_path) not in (run.directory / "model" / "README.md").read_text()
    assert str(tmp_path) not in (run.directory / "model" / "config.json").read_text()


def test_a_fine_tune_starts_from_the_parents_average(tmp_path, tiny):
    parent = tiny("stylegan").follow(("generator",))
    with torch.no_grad():
        for parameter in parent.averages.parameters():
            parameter.mul_(0.5)
    name = folder_of(parent, tmp_path / "parent")
    run = zoo.finetune(name, DATA, out=tmp_path / "run", batch=4, kimg=0.004, settings={"lr": 1e-12})
    fresh, old = run.model.averages["generator"], parent.averages["generator"]
    live = run.model.generator
    const = "blocks.4x4.const"
    share = 1 - 0.5 ** (0.004 / 0.0004)                         # ten half-lives in the whole of a fine-tune
    expected = old.get_parameter(const).lerp(live.get_parameter(const), share)
    assert torch.allclose(fresh.get_parameter(const), expected, atol=1e-4)


def test_blocks_are_counted_from_the_image_and_rounded_up():
    from torch import nn

    class Critic(nn.Module):
        def __init__(self, blocks: int):
            super().__init__()
            self.stem = nn.Identity()
            self.blocks = nn.ModuleList(nn.Identity() for _ in range(blocks))
            self.head = nn.Identity()

    assert frozen_patterns("critic", Critic(3)) == ("critic.stem.*", "critic.blocks.0.*", "critic.blocks.1.*")
    assert len(frozen_patterns("critic", Critic(4))) == 1 + 2
    assert len(frozen_patterns("critic", Critic(5))) == 1 + 3
    assert frozen_patterns("critic", Critic(4), share=0.25) == ("critic.stem.*", "critic.blocks.0.*")


def test_half_of_biggans_blocks_are_frozen_whatever_lies_between():
    model = zoo.load("biggan")
    assert frozen_patterns("discriminator", model.discriminator) == tuple(
        f"discriminator.{part}.*" for part in [*(n for n, _ in model.discriminator.named_children() if n == "stem"),
                                               "blocks.0", "blocks.1"]
    )  # fmt: skip


def test_auto_slows_a_generator_beside_a_fresh_critic_unless_its_pace_was_set(tmp_path):
    def rates(folder, **options):
        model = zoo.load("dcgan").without(("discriminator",))
        run = zoo.finetune(model, DATA, out=tmp_path / folder, **SHORT, **options)
        return {phase["name"]: phase["rate"] for phase in run.settings["recipe"]["phases"]}, run

    found, run = rates("auto")
    assert found == {"discriminator": 1.0, "generator": 0.5}
    assert run.settings["method_reason"] == (
        "discriminator is fresh, so there is nothing in it to freeze; the others learn at 0.5 of their rate"
    )
    assert rates("full", method="full")[0] == {"discriminator": 1.0, "generator": 1.0}
    assert rates("paced", add=["ttur:generator=0.25"])[0] == {"discriminator": 4.0, "generator": 0.25}
