"""Relaxed realism of method cdc: whole images near anchors, patches everywhere, and nothing left of it in the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import softplus

import zoo
from zoo.additions.apply import added
from zoo.adversarial import DiscriminatorLoss, GeneratorLoss, fakes
from zoo.losses import adversarial
from zoo.noise import Noise, key
from zoo.packing import pack
from zoo.parts import Together
from zoo.recipe import Batch, Recipe, Terms
from zoo.transfer import METHODS
from zoo.transfer.correspondence import Correspondence, log_similarities
from zoo.transfer.realism import READOUT, Near, Patchwise, apart, judging_layer, let_go
from zoo.transfer.source import Source

DATA = "emoji:smileys-emotion"


def batch_of(model: zoo.Model, n: int = 6, seed: int = 0) -> Batch:
    chance = torch.Generator().manual_seed(seed)
    size = model.config.resolution
    return Batch(torch.rand(n, model.config.channels, size, size, generator=chance) * 2 - 1, None, Noise(seed))


def relaxed(model: zoo.Model, *, add: tuple[str, ...] = (), **options) -> Recipe:
    """The recipe of cdc, with a readout that has learnt something."""
    recipe = METHODS["cdc"].apply(model, added(model, model.recipe(), add), images=2, **options)
    chance = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in model.discriminator.get_submodule(READOUT).parameters():
            value.normal_(generator=chance)
    return recipe


def turn(recipe: Recipe, name: str) -> tuple[Near, Patchwise]:
    """The two losses of a player's turn: on whole images, and on patches."""
    loss = next(phase.loss for phase in recipe.phases if phase.name == name)
    while not isinstance(loss.other, Patchwise):
        loss = loss.loss
    return loss.loss, loss.other


def latents_of(model: zoo.Model, loss, batch: Batch) -> list[torch.Tensor]:
    """What a generator that takes z is given while a loss is played."""
    seen = []
    hook = model.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    loss(model, batch)
    hook.remove()
    return seen


def anchors_of(model: zoo.Model, count: int = 10) -> torch.Tensor:
    return model.latent(count, Noise(key("anchors")))


def are_near(z: torch.Tensor, anchors: torch.Tensor, radius: float = 0.05) -> bool:
    return bool((torch.cdist(z, anchors).min(1).values < 3 * radius * z.shape[1] ** 0.5).all())


# Anchors.


@pytest.mark.parametrize("shares", [1, 2])
def test_latents_are_an_anchor_plus_noise_of_the_radius_the_same_in_every_share(tiny, shares):
    model, drawn = tiny("dcgan"), []

    def loss(model: zoo.Model, batch: Batch) -> Terms:
        drawn.extend(model.latent(len(batch), batch.noise) for _ in range(2))
        return Terms({})

    anchors, n = torch.randn(5, 8), 12
    for share in range(shares):
        batch = replace(batch_of(model, n // shares), noise=Noise(7, share=share, shares=shares))
        Near(loss, Source({"z": anchors}), 0.2)(model, batch)
    chance = Noise(7)
    chosen, first, second = chance.integers(5, n), chance.normal(n, 8), chance.normal(n, 8)
    whole = [torch.empty(n, 8), torch.empty(n, 8)]
    for index, z in enumerate(drawn):
        whole[index % 2][index // 2 :: shares] = z
    assert torch.allclose(whole[0], anchors[chosen] + 0.2 * first)
    assert torch.allclose(whole[1], anchors[chosen] + 0.2 * second)      # a row keeps its anchor
    assert torch.equal(model.latent(3, Noise(1)), Noise(1).normal(3, 8))      # and the model draws as ever again


def test_latents_go_round_all_anchors_at_the_radius(tiny):
    model, drawn = tiny("dcgan"), []

    def loss(model: zoo.Model, batch: Batch) -> Terms:
        drawn.append(model.latent(4000, batch.noise))
        return Terms({})

    anchors = 10 * torch.eye(8)
    Near(loss, Source({"z": anchors}), 0.05)(model, batch_of(model))
    distances = torch.cdist(drawn[0], anchors)
    counts = torch.bincount(distances.argmin(1), minlength=8)
    assert int(counts.min()) > 400      # of 500 expected
    offsets = drawn[0] - anchors[distances.argmin(1)]
    assert float(offsets.std()) == pytest.approx(0.05, rel=0.02)
    assert float(offsets.mean()) == pytest.approx(0, abs=0.002)


def test_whole_images_are_of_latents_near_anchors_and_patches_of_any(tiny):
    model = tiny("dcgan")
    recipe = relaxed(model, add=("mode_seeking",))
    anchors = anchors_of(model)
    for phase, calls in zip(recipe.phases, ([True, False], [True, False, False, False, False])):
        seen = latents_of(model, phase.loss, batch_of(model))[: len(calls)]
        assert [are_near(z, anchors) for z in seen] == calls, phase.name      # mode seeking looks anywhere
    assert [phase.name for phase in recipe.phases] == ["discriminator", "generator"]


def test_anchors_are_the_same_in_every_run(tiny):
    first, second = (turn(relaxed(tiny("dcgan")), "generator")[0] for _ in range(2))
    assert first.anchors.digest == second.anchors.digest
    other, _ = turn(relaxed(tiny("dcgan"), anchors=3, radius=0.5), "generator")
    assert len(other.anchors.on(torch.device("cpu"))["z"]) == 3
    assert other.radius == 0.5


# Patches.


def by_hand(model: zoo.Model, images: torch.Tensor) -> torch.Tensor:
    """Logits [N, places] of a DCGAN's patches after its first block, batch norm by the batch."""
    critic = model.discriminator
    x = torch.nn.functional.leaky_relu(critic.from_image(images), 0.2)
    x = critic.blocks[0].conv(x)
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    norm = critic.blocks[0].norm
    x = (x - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    readout = critic.get_submodule(READOUT)
    x = torch.nn.functional.leaky_relu(x, 0.2)
    logits = torch.einsum("nchw,c->nhw", x, readout.conv.weight[0, :, 0, 0]).flatten(1) + readout.conv.bias
    return readout.gain * logits


def test_patches_are_judged_by_a_layers_features_at_each_place(tiny):
    model = tiny("dcgan")
    recipe = relaxed(model, patch_weight=0.3)
    batch = batch_of(model)
    fake = fakes(model, replace(batch, noise=Noise(0)))
    real, false = by_hand(model, batch.images), by_hand(model, fake)
    assert real.shape == (6, 16)
    terms = turn(recipe, "discriminator")[1](model, batch)
    expected = 0.3 * (softplus(-real).mean() + softplus(false).mean())
    assert terms.minimise["patches_adversarial"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert terms.watch["patches_logits_real"].item() == pytest.approx(real.mean().item(), rel=1e-3, abs=1e-5)
    terms = turn(recipe, "generator")[1](model, replace(batch, noise=Noise(0)))
    expected = 0.3 * softplus(-false).mean()
    assert terms.minimise["patches_adversarial"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert model.discriminator(batch.images).shape == (6, 1)      # whole images again


def test_both_players_learn_from_patches(tiny):
    model = tiny("dcgan")
    recipe = relaxed(model)
    critic, readout = model.discriminator, model.discriminator.get_submodule(READOUT)
    turn(recipe, "discriminator")[1](model, batch_of(model)).total().backward()
    assert all(bool(value.grad.any()) for value in readout.parameters())
    assert bool(critic.from_image.weight.grad.any())      # the layers below are shared
    assert critic.head.weight.grad is None      # what comes after them has no part in it
    assert all(value.grad is None for value in model.generator.parameters())
    model.zero_grad()
    turn(recipe, "generator")[1](model, batch_of(model)).total().backward()
    assert all(bool(value.grad.any()) for name, value in model.generator.named_parameters() if "weight" in name)


def test_a_readout_learns_at_a_pace_of_its_own(tiny):
    for lr, gain in ((2e-3, 1.0), (2e-4, 10.0), (1e-5, 10.0), (4e-3, 0.5)):
        model = tiny("dcgan")
        METHODS["cdc"].apply(model, replace(model.recipe(), lr=lr))
        assert model.discriminator.get_submodule(READOUT).gain == pytest.approx(gain)


def test_an_untrained_readout_pulls_nobody(tiny):
    model = tiny("dcgan")
    recipe = METHODS["cdc"].apply(model, model.recipe(), images=2)
    terms = turn(recipe, "generator")[1](model, batch_of(model))
    assert terms.total().item() == pytest.approx(torch.log(torch.tensor(2.0)).item())
    terms.total().backward()
    assert not any(bool(value.grad.any()) for value in model.generator.parameters() if value.grad is not None)


def test_statistics_are_those_of_the_images_that_they_are_used_for(tiny):
    model = tiny("dcgan")
    whole, patches = turn(relaxed(model), "generator")

    def kept(loss, network: str) -> bool:
        before = {name: value.clone() for name, value in model.get_submodule(network).named_buffers()}
        loss(model, batch_of(model)).total().backward()      # it is not spoilt by putting them back
        return all(torch.equal(value, before[name]) for name, value in model.get_submodule(network).named_buffers())

    assert kept(whole, "generator")      # samples are made of latents from anywhere
    assert kept(patches, "discriminator")      # and it judges whole images
    assert not kept(patches, "generator")
    assert not kept(whole, "discriminator")


def test_a_mean_style_is_that_of_any_latents(tiny):
    model = tiny("stylegan")
    recipe = relaxed(model)
    seen = []
    hook = model.generator.mapping.register_forward_hook(lambda module, inputs, w: seen.append((inputs[0], w)))
    loss = next(phase.loss for phase in recipe.phases if phase.name == "generator")
    assert isinstance(loss, Together)
    assert isinstance(loss.other, Correspondence)
    watched = loss.loss(model, batch_of(model)).watch
    hook.remove()
    anchors = anchors_of(model)
    assert [are_near(z, anchors) for z, _ in seen] == [True, True, False, False]      # mixed styles are near too
    assert torch.allclose(watched["w"], seen[2][1].mean(0))
    r1 = next(phase.loss for phase in recipe.phases if phase.name == "r1")
    assert isinstance(r1, Near)      # lazy turns of the critic judge whole images alone
    path = next(phase.loss for phase in recipe.phases if phase.name == "path_length")
    assert not isinstance(path, Near | Together)


def test_parts_and_penalties_are_kept_apart():
    loss = adversarial("nonsaturating")
    alone, rest = apart(DiscriminatorLoss(loss, gamma=(8.0, 4.0)), 16)
    assert alone.gamma == (0.5, 0.25)      # each place has its own logit
    assert rest is None

    def part(judged) -> Terms:
        return Terms({"part": judged.fake.mean()})

    alone, rest = apart(Together(GeneratorLoss(loss, parts=(part,)), part), 16)
    assert alone == GeneratorLoss(loss)
    assert rest.loss.parts == (part,)
    assert rest.other is part
    assert apart(fakes, 16) == (fakes, None)      # a stranger's loss is taken as it is


@pytest.mark.parametrize(
    ("name", "config", "depth", "layer"),
    [
        ("dcgan", {"resolution": 64}, 0.5, ("blocks.0", 256)),
        ("dcgan", {"resolution": 64}, 1.0, ("blocks.2", 16)),
        ("dcgan", {"resolution": 16}, 0.01, ("blocks.0", 16)),
        ("stylegan", {"resolution": 64}, 0.5, ("blocks.32x32", 256)),
    ],
)
def test_a_share_of_the_blocks_says_where_patches_are_judged(tiny, name, config, depth, layer):
    model = tiny(name, **config)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = judging_layer(model, depth)
    assert (found.name, found.places) == layer
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_packs_are_judged_by_patches_too(tiny):
    model = pack(tiny("dcgan"), 3)
    assert judging_layer(model, 0.5).name == "critic.blocks.0"
    terms = turn(relaxed(model), "discriminator")[1](model, batch_of(model))
    assert terms.total().isfinite()


def test_a_recipe_without_a_discriminator_is_refused(tiny):
    model = tiny("dcgan")
    recipe = model.recipe()
    alone = replace(recipe, phases=tuple(phase for phase in recipe.phases if phase.name == "generator"))
    with pytest.raises(zoo.ZooError, match=r"no discriminator.*cdc:anchors=0"):
        METHODS["cdc"].apply(model, alone)
    METHODS["cdc"].apply(model, alone, anchors=0)


# What is left of it.


def test_a_run_trains_the_readout_and_the_model_is_without(tiny, tmp_path):
    model = tiny("dcgan")
    names = set(model.follow(("generator",)).state_dict())
    run = zoo.finetune(model, DATA, out=tmp_path / "run", method="cdc:images=2", batch=8, kimg=0.16, accumulate=2,
                       tick_kimg=0.08)  # fmt: skip
    assert run.log[-1]["step"] == 20
    held = load_file(max((tmp_path / "run/checkpoints").iterdir()) / "model.safetensors")
    assert bool(held[f"discriminator.{READOUT}.conv.weight"].any())
    assert set(model.state_dict()) == set(run.model.state_dict()) == names
    assert not {"latent", "finish"} & set(vars(model))
    assert {"generator.patches_adversarial", "discriminator.patches_logits_real"} <= set(run.log[-1]["terms"])
    settings = {phase["name"]: phase["settings"] for phase in run.settings["recipe"]["phases"]}
    for phase in ("generator", "discriminator"):
        found = {name: settings[phase][name] for name in ("cdc_anchors", "cdc_radius", "cdc_patches", "cdc_layer")}
        assert found == {"cdc_anchors": 10, "cdc_radius": 0.05, "cdc_patches": 1.0, "cdc_layer": "blocks.0"}


def test_what_an_interrupted_run_left_is_taken_away(tiny):
    model = tiny("dcgan").follow(("discriminator",))      # an average of a critic has a readout too
    names = set(model.state_dict())
    for _ in range(2):
        METHODS["cdc"].apply(model, model.recipe())
        assert len(set(model.state_dict()) - names) == 4
    let_go(model)
    assert set(model.state_dict()) == names
    METHODS["cdc"].apply(model, model.recipe())
    METHODS["cdc"].apply(model, model.recipe(), anchors=0)
    assert set(model.state_dict()) == names


@pytest.mark.parametrize("option", ["anchors=-1", "radius=0", "patch_weight=0", "patch_depth=2"])
def test_options_have_ranges(tmp_path, option):
    with pytest.raises(zoo.ZooError, match=f"{option}.*(greater|less) than"):
        zoo.finetune("dcgan", DATA, out=tmp_path / "run", method=f"cdc:{option}", kimg=0.016)


def test_similarities_keep_their_digits_under_autocast():
    features = torch.randn(4, 300)
    with torch.autocast("cpu", torch.bfloat16):
        found = log_similarities(features)
    assert torch.equal(found, log_similarities(features))
