"""What each transfer method computes, against closed forms, and what it lets stand still in a real training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import softplus

import zoo
from zoo.adversarial import fakes
from zoo.noise import Noise, key
from zoo.parts import Together
from zoo.projected import project
from zoo.recipe import Batch
from zoo.training.optimisers import players
from zoo.transfer import METHODS
from zoo.transfer.anchored import Anchored, fisher, relative
from zoo.transfer.correspondence import Correspondence, correspondence, log_similarities
from zoo.transfer.methods import asked
from zoo.transfer.source import Source, learnt
from zoo.transfer.still import scaling
from zoo.transfer.structure import drawing_parts, in_evaluation

SHORT = {"batch": 4, "kimg": 0.016}      # four steps
DATA = "emoji:smileys-emotion"


def batch_of(model: zoo.Model, n: int = 4, seed: int = 0) -> Batch:
    size = model.config.resolution
    classes = model.config.num_classes
    labels = torch.eye(classes)[torch.arange(n) % classes] if classes else None
    return Batch(torch.zeros(n, model.config.channels, size, size), labels, Noise(seed))


def shifted(model: zoo.Model, network: str = "generator", by: float = 0.1) -> dict[str, torch.Tensor]:
    """Move every parameter of a network by noise and return name -> how far."""
    chance = torch.Generator().manual_seed(1)
    moved = {}
    with torch.no_grad():
        for name, value in model.get_submodule(network).named_parameters():
            moved[f"{network}.{name}"] = by * torch.randn(value.shape, generator=chance)
            value += moved[f"{network}.{name}"]
    return moved


# L2-SP and EWC.


def test_l2_sp_is_half_the_weighted_squared_distance_and_pulls_straight_back(tiny):
    model = tiny("dcgan")
    recipe = METHODS["l2_sp"].apply(model, model.recipe(), weight=0.3)
    phase = next(phase for phase in recipe.phases if phase.name == "generator")
    assert isinstance(phase.loss, Together)
    moved = shifted(model)
    terms = phase.loss.other(model, batch_of(model))
    distance = sum(float(value.double().square().sum()) for value in moved.values())
    assert terms.minimise["l2_sp"].item() == pytest.approx(0.5 * 0.3 * distance, rel=1e-5)
    assert terms.watch["l2_sp_distance"].item() == pytest.approx(distance, rel=1e-5)
    terms.total().backward()
    for name, by in moved.items():
        assert torch.allclose(model.get_parameter(name).grad, 0.3 * by, atol=1e-6), name


def test_l2_sp_holds_each_player_once_and_nothing_that_is_new(tiny):
    model = tiny("stylegan")
    held = {phase.name for phase in METHODS["l2_sp"].apply(model, model.recipe()).phases
            if isinstance(phase.loss, Together)}  # fmt: skip
    assert held == {"generator", "discriminator"}      # not also the lazy turns of the same players
    model.adapted = {"generator.mapping.layers.0.weight": "re-initialised [16, 8] -> [16, 16]"}
    model.fresh = ("discriminator",)
    recipe = METHODS["l2_sp"].apply(model, replace(model.recipe(), fresh=("discriminator",)))
    losses = [phase.loss for phase in recipe.phases if isinstance(phase.loss, Together)]
    assert len(losses) == 1
    assert isinstance(losses[0].other, Anchored)
    names = set(losses[0].other.source.on(torch.device("cpu")))
    every = {f"generator.{name}" for name, _ in model.generator.named_parameters()}
    assert names == every - {"generator.mapping.layers.0.weight"}


@pytest.mark.parametrize("classes", [0, 2])
def test_fisher_is_the_mean_square_of_single_gradients(tiny, classes):
    model, n = tiny("dcgan", num_classes=classes), 6
    found = fisher(model, learnt(model, ("generator",)), n, fakes, "discriminator")

    # The same another way: all samples at once, and the Jacobian of their losses.
    noises = [Noise(key("fisher", index)) for index in range(n)]
    rows = [torch.eye(classes)[noise.integers(classes, 1)] for noise in noises] if classes else []
    labels = torch.cat(rows) if classes else None
    z = torch.cat([model.latent(1, noise) for noise in noises])
    with in_evaluation(model.generator), in_evaluation(model.discriminator):
        for name in ("head.weight", "blocks.1_2.norm.bias", "to_image.weight"):

            def losses(value: torch.Tensor, name: str = name) -> torch.Tensor:
                images = functional_call(model.generator, {name: value}, (z, labels))
                return softplus(-model.discriminator(images, labels)).flatten()

            jacobian = torch.autograd.functional.jacobian(losses, model.generator.get_parameter(name).detach())
            expected = jacobian.square().mean(0)
            assert float(expected.max()) > 0
            assert torch.allclose(found[f"generator.{name}"], expected, rtol=1e-3, atol=1e-4 * float(expected.max()))
    assert all(module.training for module in model.modules())


def test_ewc_weighs_by_the_fisher_over_its_mean(tiny):
    model = tiny("dcgan")
    importance = fisher(model, learnt(model, ("generator",)), 8, fakes, "discriminator")
    recipe = METHODS["ewc"].apply(model, model.recipe(), weight=2.0, samples=8)
    loss = next(phase.loss for phase in recipe.phases if phase.name == "generator")
    moved = shifted(model)
    mean = torch.cat([value.flatten() for value in importance.values()]).mean()
    expected = sum(float((importance[name] / mean * moved[name].square()).sum()) for name in moved)
    assert isinstance(loss, Together)
    assert loss.other(model, batch_of(model)).minimise["ewc"].item() == pytest.approx(expected, rel=1e-4)
    assert not any(isinstance(phase.loss, Together) for phase in recipe.phases if phase.name == "discriminator")
    zeros = relative({"a": torch.zeros(3)})
    assert torch.equal(zeros["a"], torch.zeros(3))


# Cross-domain correspondence.


def test_similarities_and_their_divergence_are_those_of_numpy():
    chance = np.random.default_rng(0)
    now, before = chance.normal(size=(2, 2, 5, 3, 4))      # of two blocks, five latents each

    def log_softmax(features):
        rows = features.reshape(5, -1)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = [[rows[i] @ rows[j] for j in range(5) if j != i] for i in range(5)]
        return np.array([row - np.log(np.exp(row).sum()) for row in np.array(cosines)])

    expected = 0.0
    for target, source in zip(now, before):
        y_t, y_s = log_softmax(target), log_softmax(source)
        assert np.allclose(log_similarities(torch.tensor(target, dtype=torch.float32)), y_t, atol=1e-6)
        expected += sum(float(np.exp(y_t[i]) @ (y_t[i] - y_s[i])) for i in range(5)) / 5 / 4 / 2
    tensors = [[torch.tensor(block, dtype=torch.float32) for block in side] for side in (now, before)]
    assert float(correspondence(*tensors)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["dcgan", "stylegan"])
def test_cdc_is_nothing_at_the_parent_and_moves_no_statistics(tiny, name):
    model = tiny(name, num_classes=2)
    recipe = METHODS["cdc"].apply(model, model.recipe(), images=3)
    loss = next(phase.loss for phase in recipe.phases if phase.name == "generator")
    assert isinstance(loss, Together)
    assert isinstance(loss.other, Correspondence)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert loss.other(model, batch_of(model)).total().item() == pytest.approx(0, abs=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    shifted(model, by=0.3)
    total = loss.other(model, batch_of(model)).total()
    assert total.item() > 0
    total.backward()
    assert any(value.grad is not None and bool(value.grad.any()) for value in model.generator.parameters())
    assert all(value.grad is None for value in model.discriminator.parameters())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


# What stands still.

LATENT_SIDE = {      # prefixes of what freeze_g keeps
    "dcgan": ("generator.head.", "generator.norm.", "generator.blocks.1_4."),
    "stylegan": ("generator.mapping.", "generator.blocks.4x4.", "generator.blocks.8x8."),
}


def finetuned(name: str, method: str, out, **options) -> tuple[dict[str, torch.Tensor], zoo.Model, zoo.Run]:
    model = zoo.load(name)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    run = zoo.finetune(model, DATA, out=out, method=method, **{**SHORT, **options})
    return before, run.model, run


def still(before: dict[str, torch.Tensor], model: zoo.Model) -> set[str]:
    return {key for key, value in model.named_parameters() if key in before and torch.equal(value, before[key])}


@pytest.mark.parametrize("name", sorted(LATENT_SIDE))
def test_freeze_g_holds_exactly_what_lies_next_to_the_latent(tmp_path, name):
    before, model, _ = finetuned(name, "freeze_g", tmp_path / "run")
    assert still(before, model) == {key for key in before if key.startswith(LATENT_SIDE[name])}


@pytest.mark.parametrize("name", ["dcgan", "stylegan"])
def test_scale_shift_moves_exactly_what_scales_and_shifts(tmp_path, name):
    before, model, _ = finetuned(name, "scale_shift", tmp_path / "run")
    word = {"dcgan": ".norm.", "stylegan": ".affine."}[name]
    moving = {key for key in before if key.startswith("generator.") and word in key}
    assert len(moving) == {"dcgan": 6, "stylegan": 22}[name]
    assert still(before, model) == {key for key in before if key.startswith("generator.")} - moving


def test_scale_shift_finds_conditional_norms():
    model = zoo.load("biggan")
    names = scaling(model, model.generator)
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in names} >= {"gain", "bias"}
    assert all("norm" in name for name in names)
    assert "generator.norm.gain" in names


def test_an_options_share_decides_how_much_stands_still():
    model = zoo.load("stylegan")
    counts = []
    for share in (0.25, 0.5, 0.75):
        recipe = METHODS["freeze_g"].apply(model, model.recipe(), share=share)
        counts.append(len(players(model, recipe, scale_gradients=False)[("generator",)].parameters))
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 3


def test_a_generator_is_read_from_latent_to_image():
    assert drawing_parts(zoo.load("biggan").generator).blocks == ("blocks.0", "blocks.1", "blocks.2")
    small = zoo.create("stylegan3", resolution=16, channel_base=64, channel_max=8, w=8, latent=8)
    found = drawing_parts(small.generator)
    assert "mapping" in found.before
    assert len(found.blocks) > 4
    assert all(name.startswith("synthesis.layers.") for name in found.blocks)


# Together with what else a fine-tune may have.


@pytest.mark.parametrize("method", ["cdc:images=3", "lora:rank=2"])
def test_methods_go_with_a_projected_critic_and_classes(tiny, tmp_path, method):
    model = project(tiny("dcgan", num_classes=8), resolution=32, channels=8, pretrained=False)
    run = zoo.finetune(model, "emoji", out=tmp_path / "run", method=method, **SHORT)
    assert run.settings["fresh"] == ["discriminator"]
    assert run.model.sample(labels=[0, 7]).isfinite().all()


def test_options_are_recorded_and_additions_join(tmp_path):
    run = zoo.finetune("dcgan", DATA, out=tmp_path / "run", method="l2_sp:weight=0.5,critic=false",
                       add=["mode_seeking"], **SHORT)  # fmt: skip
    assert run.settings["method"] == "l2_sp"
    assert run.settings["method_options"] == {"weight": 0.5, "critic": False}
    phases = {phase["name"]: phase["settings"] for phase in run.settings["recipe"]["phases"]}
    assert phases["generator"]["l2_sp"] == 0.5
    assert "l2_sp" not in phases["discriminator"]
    assert {"generator.l2_sp", "generator.mode_seeking"} <= set(run.log[-1]["terms"])


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("vae", "freeze_g", r"no generator.*use full or l2_sp"),
        ("vae", "lora", r"no generator"),
        ("r3gan", "scale_shift", r"neither norms.*use method lora, freeze_g or full"),
        ("dcgan", "l2_sp:wieght=1", r"no option 'wieght'.*Did you mean 'weight'"),
        ("dcgan", "l2_sp:weight=-1", r"weight=-1.*greater than 0"),
        ("dcgan", "cdc:images=1", r"images=1"),
        ("dcgan", "full:share=0.5", r"no option 'share'.*Options: none"),
        ("dcgan", "auto:share=0.5", r"no option 'share'"),
        ("dcgan", "freeze_g:share", r"write NAME:option=value|NAME or NAME:option"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, name, method, message):
    tiny_vae = {"resolution": 16, "width": 4, "widest": 8, "latent": 4, "prior_width": 8}
    model = zoo.load(name) if name == "dcgan" else zoo.create(name, **(tiny_vae if name == "vae" else {}))
    with pytest.raises(zoo.ZooError, match=message) as caught:
        zoo.finetune(model, DATA, out=tmp_path / "run", method=method, **SHORT)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("method", "message"), [("ewc", "use method l2_sp"), ("lora:critic=true", "leave it out"),
                                                 ("freeze_d", "use method full")])  # fmt: skip
def test_a_fresh_critic_has_nothing_to_keep(tmp_path, method, message):
    model = zoo.load("dcgan").without(("discriminator",))
    with pytest.raises(zoo.ZooError, match=message):
        zoo.finetune(model, DATA, out=tmp_path / "run", method=method, **SHORT)


def test_every_method_says_what_it_does_and_who_found_it():
    for name, method in METHODS.items():
        assert method.summary
        assert "arXiv:" in method.paper
        assert asked(name)[0] == name


def test_a_source_does_not_follow_the_weights(tiny):
    model = tiny("dcgan")
    source = Source(model.generator.state_dict())
    before = {name: value.clone() for name, value in source.on(torch.device("cpu")).items()}
    shifted(model)
    assert all(torch.equal(value, before[name]) for name, value in source.on(torch.device("cpu")).items())
    assert Source(model.generator.state_dict()).digest != source.digest
