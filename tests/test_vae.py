"""The VAE: its bound, its own noise level, its prior, and the round trip through the latents."""

from __future__ import annotations

from dataclasses import replace
from math import log, pi

import pytest
import torch
from pydantic import ValidationError

import zoo
from zoo.noise import Noise
from zoo.recipe import Batch
from zoo.testing import check_architecture
from zoo_vae.model import VAE, VAEConfig
from zoo_vae.prior import Flow

SMALL = {
    "rgb, gaussian": {"likelihood": "gaussian"},
    "grey, classes": {"channels": 1, "num_classes": 3},
    "rgba, normal prior": {"channels": 4, "prior": "normal"},
    "two blocks, classes": {"depth": 2, "num_classes": 3},
    "no warm-up, smallest": {"resolution": 8, "warmup": 0.0, "latent": 2},
}


def build(**settings) -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(**{"resolution": 16, "width": 4, "widest": 8, "latent": 5, "prior_width": 8, **settings}))


@pytest.fixture(params=SMALL.values(), ids=SMALL.keys())
def small(request) -> VAE:
    return build(**request.param)


def batch_for(model: VAE, n: int = 6, seed: int = 0, progress: float = 1.0) -> Batch:
    config, chance = model.config, torch.Generator().manual_seed(seed)
    images = torch.rand(n, config.channels, config.resolution, config.resolution, generator=chance) * 2 - 1
    labels = torch.eye(config.num_classes)[torch.arange(n) % config.num_classes] if config.num_classes else None
    return Batch(images, labels, Noise(seed), progress)


def turn(model: VAE, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
    (phase,) = model.recipe().phases
    terms = phase.loss(model, batch)
    optimizer.zero_grad()
    terms.total().backward()
    optimizer.step()
    phase.after(model, terms.watch)
    values = {**terms.minimise, **terms.watch}
    return {name: value.item() for name, value in values.items() if value.ndim == 0}


def test_the_phase_moves_every_weight_of_every_network(small):
    before = {name: value.clone() for name, value in small.named_parameters()}
    optimizer = torch.optim.Adam(small.parameters(), 1e-3)
    for step in range(3):
        values = turn(small, optimizer, batch_for(small, seed=step))
        assert all(torch.isfinite(torch.tensor(list(values.values()))))
    (phase,) = small.recipe().phases
    assert set(phase.trains) == set(small.recipe().averaged) == set(small.networks())
    assert [name for name, value in small.named_parameters() if torch.equal(value, before[name])] == []


def test_training_lowers_the_error_and_the_scale_follows_it(small):
    batch = batch_for(small, n=4)
    images = torch.where(batch.images.mean((1, 2, 3), keepdim=True) > 0, 0.8, -0.6).expand_as(batch.images)
    optimizer = torch.optim.Adam(small.parameters(), 3e-3)
    values = [turn(small, optimizer, replace(batch, images=images)) for _ in range(50)]
    assert values[-1]["error"] < 0.6 * values[0]["error"]
    scale = small.decoder.scale.item()
    assert min(v["error"] for v in values) < scale < values[0]["error"] + 0.5


def test_samples_have_the_asked_shape_and_repeat_by_seed(small):
    first = small.sample(5, seed=1)
    assert first.shape == (5, small.config.channels, small.config.resolution, small.config.resolution)
    assert torch.equal(first, small.sample(5, seed=1))
    torch.nn.init.normal_(small.decoder.head.weight)
    assert not torch.equal(small.sample(5, seed=1), small.sample(5, seed=2))
    assert small.sample(5, seed=1).abs().max() <= 1
    torch.nn.init.constant_(small.decoder.to_image.bias, 5.0)
    assert small.sample(5, seed=1, clamp=False).max() > 1


def test_config_survives_json(small):
    assert VAEConfig.model_validate_json(small.config.model_dump_json()) == small.config


def test_a_model_built_without_memory_takes_the_weights(small):
    with torch.device("meta"):
        bare = VAE(small.config)
    bare.load_state_dict(small.state_dict(), assign=True)
    assert torch.equal(bare.sample(3, seed=4), small.sample(3, seed=4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 4}, "resolution 4: the VAE takes powers of two from 8"),
        ({"resolution": 24}, "resolution 24: the VAE takes powers of two from 8"),
        ({"latent": 1}, "a flow needs at least 2 numbers"),
        ({"likelihood": "poisson"}, "'laplace' or 'gaussian'"),
        ({"warmup": 1.5}, "less than or equal to 1"),
        ({"beta": float("nan")}, "finite"),
        ({"width": 2.5}, "valid integer"),
    ],
)
def test_impossible_configurations_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message) as caught:
        VAEConfig(**settings)
    assert all("\n" not in error["msg"] for error in caught.value.errors())


@pytest.mark.parametrize(("kind", "scale"), [("gaussian", 0.3), ("laplace", 0.7)])
def test_the_reconstruction_term_is_the_log_likelihood(kind, scale):
    model = build(likelihood=kind, prior="normal")
    model.decoder.scale.fill_(scale)
    batch = batch_for(model)
    mean, log_std = model.encoder(batch.images)
    latents = mean + log_std.exp() * Noise(0).normal(6, 5)
    images = model.decoder(latents)
    if kind == "gaussian":
        likelihood = torch.distributions.Normal(images, scale**0.5)
    else:
        likelihood = torch.distributions.Laplace(images, scale)
    term = model.recipe().phases[0].loss(model, batch).minimise["reconstruction"]
    assert term.item() == pytest.approx(-likelihood.log_prob(batch.images).mean().item(), rel=1e-5)


def test_the_divergence_from_a_normal_prior_is_exact():
    model = build(prior="normal", free_bits=0.0)
    terms = model.recipe().phases[0].loss(model, batch_for(model))
    mean, log_std = model.encoder(batch_for(model).images)
    posterior = torch.distributions.Normal(mean, log_std.exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    assert terms.watch["kl"].item() == pytest.approx(kl.item(), rel=1e-5)
    assert terms.minimise["divergence"].item() == pytest.approx(kl.item() / (3 * 16 * 16), rel=1e-5)


def test_a_fresh_flow_diverges_as_much_as_the_normal_prior():
    flow, normal = build(prior="flow", free_bits=0.0), build(prior="normal", free_bits=0.0)
    flow.load_state_dict(normal.state_dict(), strict=False)
    images = batch_for(normal, n=1).images.expand(1024, -1, -1, -1)
    batch = Batch(images, None, Noise(1), 1.0)
    with torch.no_grad():
        estimate = flow.recipe().phases[0].loss(flow, batch).watch["kl"]
        exact = normal.recipe().phases[0].loss(normal, batch).watch["kl"]
    assert estimate.item() == pytest.approx(exact.item(), rel=0.15)


def test_free_bits_cost_the_same_and_pull_no_more():
    model = build(prior="normal", free_bits=3.0)
    terms = model.recipe().phases[0].loss(model, batch_for(model))
    assert terms.watch["kl"] < 15
    assert terms.minimise["divergence"].item() == pytest.approx(3.0 * 5 / (3 * 16 * 16))
    terms.minimise["divergence"].backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_the_divergence_warms_up():
    model = build(warmup=0.5, beta=2.0)
    loss = model.recipe().phases[0].loss
    paid = [loss(model, batch_for(model, progress=p)).minimise["divergence"].item() for p in (0, 0.25, 0.5, 1)]
    assert paid == pytest.approx([0, paid[2] / 2, paid[2], paid[2]])
    assert paid[2] > 0


def test_active_units_counts_the_dimensions_that_tell_images_apart():
    model = build()
    with torch.no_grad():
        model.encoder.head.weight[:5].zero_()
        model.encoder.head.weight[2].normal_()
    assert model.recipe().phases[0].loss(model, batch_for(model)).watch["active"] == 1


@pytest.mark.parametrize(("size", "classes"), [(7, 3), (2, 0), (6, 2)])
def test_the_flows_density_is_that_of_its_samples(size, classes):
    torch.manual_seed(0)
    flow = Flow(size, classes, width=16, steps=4).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    z = torch.randn(3, size, dtype=torch.float64)
    labels = torch.eye(classes, dtype=torch.float64)[[0, 1, 0]] if classes else None
    density = flow.log_density(flow(z, labels), labels)
    for i in range(3):
        row = None if labels is None else labels[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda x, row=row: flow(x[None], row)[0], z[i])
        normal = -0.5 * (z[i].square() + log(2 * pi)).sum()
        assert density[i].item() == pytest.approx((normal - torch.linalg.slogdet(jacobian)[1]).item(), abs=1e-5)


def test_encode_gives_the_posterior_and_decode_shows_latents():
    model = build(prior="normal")
    images = batch_for(model).images
    mean, std = model.encode(images)
    assert mean.shape == std.shape == (6, 5)
    assert (std > 0).all()
    assert torch.equal(mean, model.encode(images).mean)
    assert torch.equal(model.decode(mean), model.sample(z=mean, clamp=False))
    assert model.decode(mean).shape == images.shape
    torch.nn.init.constant_(model.decoder.to_image.bias, 5.0)
    assert model.decode(mean).max() > 1
    assert torch.equal(model.decode(mean, clamp=True), model.sample(z=mean))


def test_the_averages_are_what_encodes_and_decodes():
    model = build().follow(("encoder", "decoder", "prior"))
    images = batch_for(model).images
    before = model.encode(images).mean
    for parameter in model.encoder.parameters():
        parameter.data.add_(1)
    assert torch.equal(model.encode(images).mean, before)
    for name in ("decoder", "prior"):
        for parameter in model.averages[name].parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    assert not torch.equal(model.decode(before), build().decode(before))
    assert not torch.equal(model.decode(before), model.sample(z=before, clamp=False))      # sample asks the prior first


def test_labels_steer_the_decoder_and_may_be_left_out():
    model = build(num_classes=3)
    latents = torch.zeros(2, 5)
    torch.nn.init.normal_(model.decoder.embedding.weight)
    assert not torch.equal(model.decode(latents, [0, 1])[0], model.decode(latents, [0, 1])[1])
    assert torch.equal(model.decode(latents), model.decode(latents, torch.full((2, 3), 1 / 3)))
    with pytest.raises(zoo.ZooError, match="outside 0 to 2"):
        model.decode(latents, [0, 3])


def test_what_does_not_fit_is_refused_in_one_line():
    model = build()
    with pytest.raises(zoo.ZooError, match=r"Images of shape \[2, 3, 8, 8\]") as caught:
        model.encode(torch.zeros(2, 3, 8, 8))
    assert "\n" not in str(caught.value)
    with pytest.raises(zoo.ZooError, match=r"Latents of shape \[2, 4\]: this VAE decodes \[N, 5\]"):
        model.decode(torch.zeros(2, 4))
    with pytest.raises(zoo.ZooError, match="no discriminator"):
        model.logits(torch.zeros(1, 3, 16, 16))


def test_the_default_is_small_enough_to_bundle():
    with torch.device("meta"):
        model = VAE(VAEConfig(num_classes=7))
    assert sum(p.numel() for p in model.parameters()) < 2.0e6


@pytest.mark.parametrize("settings", [{"num_classes": 3}, {"prior": "normal", "channels": 1}])
def test_it_keeps_the_contract_of_an_architecture(settings):
    passed = check_architecture("vae", resolution=8, width=4, latent=4, prior_width=8, **settings)
    assert "phases_move_what_they_train" in passed


def test_the_recipe_trains_in_the_trainer(tmp_path):
    model = zoo.create("vae", resolution=8, width=4, latent=4, num_classes=7, prior_width=8)
    run = zoo.train(model, "emoji:-smileys-emotion", kimg=0.064, batch=16, out=tmp_path / "run")
    assert model.decoder.scale < 1
    again = zoo.load(f"dir:{run.directory / 'model'}")
    assert torch.allclose(again.sample(4, seed=0), model.sample(4, seed=0), atol=1e-5)
    assert torch.equal(again.decoder.scale, model.decoder.scale)
