"""BigGAN: the paper's networks, what each phase moves, truncation and its statistics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

import zoo
from zoo.noise import Noise
from zoo.recipe import Batch
from zoo.testing import check_architecture
from zoo_biggan.config import BigGANConfig
from zoo_biggan.layers import BatchNorm, SNConv2d, spectral_norm
from zoo_biggan.model import BigGAN

SMALL = {
    "plain": {"resolution": 16, "num_classes": 3, "embedding": 6, "latent": 12},
    "grey, no classes": {"resolution": 16, "channels": 1},
    "rgba, a table in each norm": {"resolution": 16, "channels": 4, "num_classes": 3, "embedding": 0},
    "not hierarchical": {"resolution": 16, "num_classes": 3, "embedding": 6, "hierarchical": False},
    "no condition at all": {"resolution": 16, "hierarchical": False},
    "deep": {"resolution": 16, "num_classes": 3, "embedding": 6, "latent": 8, "deep": True},
    "deep, no classes, flat": {"resolution": 16, "latent": 8, "deep": True, "hierarchical": False},
    "own blocks": {
        "resolution": 8,
        "generator_blocks": [[True, 2, 1]],
        "discriminator_blocks": [[True, 0, 1], [False, 1, 2]],
        "attention": [8],
    },
    "weights as they are": {"resolution": 16, "spectral_generator": False, "statistics": 1},
}


@pytest.fixture(params=SMALL.values(), ids=SMALL.keys())
def small(request) -> BigGAN:
    torch.manual_seed(0)
    return BigGAN(BigGANConfig(width=4, **request.param))


CANCELS = "discriminator.linear.bias"      # where all logits are within the hinge's margins, reals and fakes pull alike


def plain() -> BigGAN:
    torch.manual_seed(0)
    return BigGAN(BigGANConfig(width=4, **SMALL["plain"]))


def batch_for(model: BigGAN, n: int = 4, seed: int = 0) -> Batch:
    config, chance = model.config, torch.Generator().manual_seed(seed)
    images = torch.rand(n, config.channels, config.resolution, config.resolution, generator=chance) * 2 - 1
    labels = torch.eye(config.num_classes)[torch.arange(n) % config.num_classes] if config.num_classes else None
    return Batch(images, labels, Noise(seed))


def open_attention(model: BigGAN) -> None:
    """Attention starts at gamma = 0, which keeps gradients from its other weights."""
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            parameter.data.fill_(0.5)


def test_each_phase_moves_all_of_its_network_and_nothing_else(small):
    open_attention(small)
    recipe = small.recipe()
    for step in range(2):
        for phase in recipe.phases:
            small.requires_grad_(False)
            for name in phase.trains:
                small.get_submodule(name).requires_grad_(True)
            optimizer = torch.optim.Adam([p for p in small.parameters() if p.requires_grad], recipe.lr * phase.rate)
            before = {name: value.clone() for name, value in small.named_parameters()}
            terms = phase.loss(small, batch_for(small, seed=step))
            assert torch.isfinite(terms.total())
            terms.total().backward()
            optimizer.step()
            for name, value in small.named_parameters():
                assert torch.isfinite(value).all()
                stood = torch.equal(value, before[name])
                if name == CANCELS and stood:
                    continue
                assert stood == (name.split(".")[0] not in phase.trains), name


def test_samples_have_the_asked_shape_and_repeat_by_seed(small):
    shape = (5, small.config.channels, small.config.resolution, small.config.resolution)
    first = small.sample(5, seed=1)
    assert first.shape == shape
    assert first.abs().max() <= 1
    assert torch.equal(first, small.sample(5, seed=1))
    assert not torch.equal(first, small.sample(5, seed=2))


def test_config_survives_json(small):
    assert BigGANConfig.model_validate_json(small.config.model_dump_json()) == small.config


def test_a_model_built_without_memory_takes_the_weights(small):
    with torch.device("meta"):
        bare = BigGAN(small.config)
    bare.load_state_dict(small.state_dict(), assign=True)
    assert torch.equal(bare.sample(3, seed=4), small.sample(3, seed=4))


@pytest.mark.parametrize(
    ("deep", "width", "resolution", "generator", "discriminator"),
    [
        # Known counts: the paper's tables and the authors' code at 1000 classes, in millions.
        (False, 96, 128, 70.43, 87.98),
        (True, 128, 128, 50.24, 34.59),        # 50.4 in the paper, whose last layer makes 128 channels and drops 125
    ],
)
def test_default_networks_are_the_papers(deep, width, resolution, generator, discriminator):
    config = BigGANConfig(
        resolution=resolution, deep=deep, width=width, num_classes=1000, latent=128 if deep else 120
    )
    with torch.device("meta"):
        model = BigGAN(config)
    millions = [round(sum(p.numel() for p in net.parameters()) / 1e6, 2) for net in model.networks().values()]
    assert millions == [generator, discriminator]


@pytest.mark.parametrize("resolution", [16, 32, 64, 128, 256, 512])
@pytest.mark.parametrize("deep", [False, True])
def test_every_resolution_of_the_tables_runs(resolution, deep):
    model = BigGAN(BigGANConfig(resolution=resolution, deep=deep, width=1, statistics=1)).eval()
    images = model.sample(1, seed=0)
    assert images.shape == (1, 3, resolution, resolution)
    assert model.logits(images).shape == (1, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 48}, "BigGAN takes 16, 32, 64"),
        ({"resolution": 1024}, "BigGAN takes 16, 32, 64"),
        ({"resolution": 32, "latent": 81}, "81 does not split into 4 equal parts; 80 does"),
        ({"resolution": 32, "attention": [24]}, r"attention at \[24\]: possible at \[8, 16, 32\]"),
        ({"resolution": 32, "generator_attention": [3]}, "the generator has blocks 0 to 2"),
        ({"resolution": 32, "discriminator_attention": [-1]}, "the discriminator has blocks 0 to 3"),
        ({"resolution": 32, "generator_blocks": [[True, 4, 4]]}, "must upsample 3 times, from 4 to 32"),
        ({"resolution": 16, "generator_blocks": [[True, 4, 2], [True, 4, 2]]}, "block 0 gives 2 .* block 1 takes 4"),
        ({"resolution": 16, "generator_blocks": []}, "at least one block"),
        ({"resolution": 16, "discriminator_blocks": [[True, 1, 2]]}, "must be 0"),
        ({"resolution": 16, "deep": True, "discriminator_blocks": [[True, 0, 2]]}, "must be at least 1"),
        ({"resolution": 16, "deep": True, "generator_blocks": [[True, 1, 2], [True, 2, 2]]}, "not raise them"),
        ({"resolution": 16, "deep": True, "discriminator_blocks": [[True, 2, 1]]}, "not lower them"),
        ({"resolution": 16, "discriminator_blocks": [[True, 0, 1], *[[True, 1, 1]] * 4]}, "too often"),
        (
            {"resolution": 8, "generator_blocks": [[True, 1, 1]], "discriminator_blocks": [[True, 0, 1], [True, 1, 1],
             [True, 1, 1]], "discriminator_attention": [2]},
            "at least 2x2 places",
        ),
        ({"width": 0}, "greater than or equal to 1"),
        ({"width": "32"}, "valid integer"),
        ({"attention": ["16"]}, "valid integer"),
        ({"colour": 3}, "not permitted"),
    ],
)
def test_impossible_configurations_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message) as caught:
        BigGANConfig(**settings)
    assert all("\n" not in error["msg"] for error in caught.value.errors())


def test_spectral_norm_bounds_the_weight_and_moves_only_in_training():
    torch.manual_seed(0)
    layer = SNConv2d(5, 7, 3)
    x = torch.randn(2, 5, 6, 6)
    start = layer.u.clone()
    layer.eval()(x)
    assert torch.equal(layer.u, start)
    layer.train()
    for _ in range(200):
        layer(x)
    assert not torch.equal(layer.u, start)
    with torch.no_grad():
        normal = spectral_norm(layer.weight, layer.u, update=False)
    assert torch.linalg.matrix_norm(normal.flatten(1), 2).item() == pytest.approx(1, abs=1e-4)


def test_spectral_norms_gradient_is_that_of_the_weight_over_its_norm():
    torch.manual_seed(0)
    weight = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    u = torch.linalg.svd(weight.detach())[0][:, 0].float()
    target = torch.randn(6, 4, dtype=torch.float64)
    (ours,) = torch.autograd.grad((spectral_norm(weight, u, update=False) * target).sum(), weight)
    (true,) = torch.autograd.grad((weight / torch.linalg.matrix_norm(weight, 2) * target).sum(), weight)
    assert torch.allclose(ours, true, atol=1e-4)


def test_two_forward_passes_may_precede_one_backward_pass():
    model = plain()
    z, labels = torch.randn(4, 12), torch.eye(3)[[0, 1, 2, 0]]
    both = model.generator(z, labels).sum() + model.generator(-z, labels).sum()
    both.backward()
    assert all(parameter.grad is not None for parameter in model.generator.parameters())


def test_the_logit_is_linear_in_the_label():
    model = plain()
    images = batch_for(model).images
    rows = [model.logits(images, torch.eye(3)[[k] * 4]) for k in range(3)]
    mixed = model.logits(images, torch.tensor([[0.5, 0.25, 0.25]] * 4))
    assert torch.allclose(mixed, 0.5 * rows[0] + 0.25 * rows[1] + 0.25 * rows[2], atol=1e-5)
    assert not torch.allclose(rows[0], rows[1])


def test_each_part_of_a_hierarchical_latent_reaches_its_own_place():
    model = plain().eval()
    for norm in (m for m in model.generator.modules() if isinstance(m, BatchNorm)):
        assert norm.mean.abs().max() == 0
    z, labels = torch.randn(1, 12), torch.eye(3)[:1]
    seen: list[torch.Tensor] = []
    model.generator.linear.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        images = model.generator(z, labels)
        for place in range(3):
            other = z.clone()
            other[:, 4 * place : 4 * place + 4] += 1
            assert not torch.equal(model.generator(other, labels), images)
            assert torch.equal(seen[-1], seen[0]) == (place > 0)       # the head sees only the first part


def test_labels_reach_the_generator_and_soft_rows_lie_between():
    model = plain()
    z = torch.randn(1, 12).expand(3, 12)
    images = model.sample(z=z, labels=[0, 1, 2])
    assert not torch.allclose(images[0], images[1])
    assert not torch.allclose(images[1], images[2])
    half = model.sample(z=z[:1], labels=torch.tensor([[0.5, 0.5, 0.0]]))
    assert not torch.allclose(half[0], images[0])


def test_truncated_latents_are_normal_numbers_within_bounds():
    model = plain()
    whole = model.latent(2000, Noise(0))
    assert whole.abs().max() > 3
    half = model.latent(2000, Noise(0), psi=0.5)
    assert 0.98 < half.abs().max() <= 1.0
    assert half.std().item() == pytest.approx(0.5 * 0.8796, rel=0.02)      # of a normal cut off at 2 deviations
    assert model.latent(3, Noise(0), psi=0).abs().max() == 0


def test_a_share_of_a_batch_draws_its_rows_of_the_whole():
    model = plain()
    whole = model.latent(4, Noise(7), psi=0.7)
    assert torch.equal(whole[1::2], model.latent(2, Noise(7, share=1, shares=2), psi=0.7))


def test_standing_statistics_are_measured_for_each_truncation():
    model = plain()
    model.follow(("generator",))
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.standing_statistics(samples=512, batch=64)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, kept[name])}
    assert changed
    assert all(name.startswith("averages.generator.") and name.endswith((".mean", ".var")) for name in changed)
    first = model.averaged("generator").blocks[0].norm1
    assert first.var[0].abs().max() == 0           # psi = 0: the head sees zeros
    weight = model.averaged("generator").linear.weight.detach()
    norm = torch.linalg.matrix_norm(weight, 2)
    expected = (weight / norm).square().sum(1).reshape(16, 16).mean(1)      # of a standard normal through the head
    assert torch.allclose(first.var[-1], expected, rtol=0.15)
    assert (first.var.mean(1).diff() > 0).all()


def test_standing_statistics_repeat_by_seed_and_psi_picks_them():
    z, labels = torch.randn(4, 12), torch.tensor([0, 1, 2, 0])
    one, two = plain().standing_statistics(samples=128), plain().standing_statistics(samples=128)
    assert torch.equal(one.sample(z=z, labels=labels), two.sample(z=z, labels=labels))
    wide, narrow = one.sample(z=z, labels=labels, psi=1.0), one.sample(z=z, labels=labels, psi=0.4)
    assert not torch.allclose(wide, narrow, atol=1e-3)
    with pytest.raises(zoo.ZooError, match="batches of two or more"):
        one.standing_statistics(batch=1)


def test_between_two_sets_of_statistics_both_count():
    norm = BatchNorm(1, eps=1e-5, rows=3, swapped=False).eval()
    norm.keep([(torch.tensor([float(i)]), torch.tensor([1.0])) for i in range(3)])
    swapped = BatchNorm(1, eps=1e-5, rows=3, swapped=True).eval()
    swapped.load_state_dict(norm.state_dict())
    zero = torch.zeros(1, 1, 1, 1)
    for psi, mean in ((0, 0), (0.25, 0.5), (0.4, 0.8), (0.5, 1), (1, 2), (1.5, 2)):
        assert norm.normalise(zero, psi).item() == pytest.approx(-mean, abs=1e-4)
    assert swapped.normalise(zero, 0.4).item() == pytest.approx(-0.2, abs=1e-4)      # 0 and 1 with weights turned round


def test_training_statistics_serve_every_truncation():
    norm = BatchNorm(3, eps=1e-5, rows=4, swapped=False).train()
    x = torch.randn(64, 3, 4, 4) * 2 + 1
    for _ in range(60):
        norm.normalise(x, 1.0)
    assert torch.allclose(norm.mean, x.mean((0, 2, 3)).expand(4, 3), atol=0.01)
    assert torch.allclose(norm.var, x.var((0, 2, 3)).expand(4, 3), rtol=0.01)


def test_orthogonal_regularisation_leaves_the_shared_embedding_alone():
    model = plain()
    generator = model.recipe().phases[1].loss
    before = generator(model, batch_for(model)).minimise["orthogonal"].item()
    model.generator.embedding.weight.data.add_(10)
    assert generator(model, batch_for(model)).minimise["orthogonal"].item() == before
    model.generator.to_image.weight.data.add_(10)
    assert generator(model, batch_for(model)).minimise["orthogonal"].item() > before
    bare = BigGAN(model.config.model_copy(update={"orthogonal": 0.0}))
    assert list(bare.recipe().phases[1].loss(bare, batch_for(bare)).minimise) == ["adversarial"]


def test_orthogonal_regularisation_is_exactly_the_papers_formula():
    model = plain()
    weights = [w for n, w in model.generator.named_parameters() if w.ndim > 1 and n != "embedding.weight"]
    expected = 0.0
    for weight in weights:
        gram = weight.detach().flatten(1) @ weight.detach().flatten(1).T
        expected += (gram * (1 - torch.eye(len(gram)))).square().sum().item()
    term = model.recipe().phases[1].loss(model, batch_for(model)).minimise["orthogonal"]
    assert term.item() == pytest.approx(1e-4 * expected, rel=1e-4)


def test_bfloat16_training_is_finite():
    model = plain()
    with torch.autocast("cpu", torch.bfloat16):
        for phase in model.recipe().phases:
            terms = phase.loss(model, batch_for(model))
            terms.total().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("settings", [{"num_classes": 3, "latent": 12}, {"deep": True, "channels": 1}])
def test_it_keeps_the_contract_of_an_architecture(settings):
    passed = check_architecture("biggan", resolution=16, width=4, **settings)
    assert "saves_and_loads" in passed


def test_the_recipe_trains_in_the_trainer(tmp_path):
    torch.manual_seed(0)
    model = zoo.create("biggan", resolution=16, width=4, latent=12, num_classes=7)
    run = zoo.train(
        model, "emoji:-smileys-emotion", kimg=0.064, out=tmp_path / "run", recipe=replace(model.recipe(), batch=16)
    )
    again = zoo.load(f"dir:{run.directory / 'model'}")
    assert torch.allclose(again.sample(4, seed=0), model.sample(4, seed=0), atol=1e-5)
