"""The VAE's objectives against closed forms, and a real training with each of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import log, pi
from pathlib import Path

import pytest
import torch
from faults.breaking_off import broken_off
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributions import Laplace, MultivariateNormal, Normal, kl_divergence

import zoo
from zoo.data import ImageSet, open_images
from zoo.noise import Noise
from zoo.recipe import Batch, Recipe
from zoo_vae import bounds, objectives
from zoo_vae.model import VAE, VAEConfig

SMALL = {"resolution": 16, "width": 4, "widest": 8, "latent": 5, "prior_width": 8, "prior_steps": 2}


def build(**settings) -> VAE:
    torch.manual_seed(0)
    return zoo.create("vae", **{**SMALL, **settings})


def batch_for(model: zoo.Model, n: int = 6, seed: int = 0, progress: float = 1.0) -> Batch:
    config, chance = model.config, torch.Generator().manual_seed(seed)
    images = torch.rand(n, config.channels, config.resolution, config.resolution, generator=chance) * 2 - 1
    labels = torch.eye(config.num_classes)[torch.arange(n) % config.num_classes] if config.num_classes else None
    return Batch(images, labels, Noise(seed), progress)


# Pure functions.


def test_the_weight_rises_in_cycles():
    """Fu et al., 2019, section 5: four cycles, the first half of each to rise in."""
    values = [objectives.annealed(i / 16, warmup=0.5, cycles=4) for i in range(16)]
    assert values == [0, 0.5, 1, 1] * 4
    assert objectives.annealed(1.0, 0.5, 4) == 1
    assert objectives.annealed(0.2, 0.0, 4) == 1
    assert [objectives.annealed(i / 4, 0.5) for i in range(5)] == [0, 0.5, 1, 1, 1]      # one cycle: a warm-up
    assert [objectives.annealed(i / 4, 1.0) for i in range(5)] == [0, 0.25, 0.5, 0.75, 1]


def test_the_config_says_how_the_weight_rises():
    model = build(warmup=0.5, cycles=2, beta=3.0, prior="normal", free_bits=0.0)
    (phase,) = model.recipe().phases
    paid = [phase.loss(model, batch_for(model, progress=i / 8)).minimise["divergence"].item() for i in range(8)]
    full = paid[2]
    assert full > 0
    assert paid == pytest.approx([0, full / 2, full, full] * 2)


def test_free_bits_are_a_floor_under_each_dimension():
    divergences = torch.tensor([0.1, 0.5, 2.0], requires_grad=True)
    paid = objectives.free_bits(divergences, 0.4)
    assert paid.item() == pytest.approx(0.4 + 0.5 + 2.0)
    paid.backward()
    assert divergences.grad.tolist() == [0, 1, 1]


@pytest.mark.parametrize("kind", objectives.LIKELIHOODS)
def test_a_likelihood_is_that_of_torch_and_best_at_its_own_scale(kind):
    likelihood = objectives.LIKELIHOODS[kind]
    difference = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distance = likelihood.distance(difference).mean()

    def surprise(scale: float) -> float:
        return likelihood.surprise(distance, torch.tensor(scale, dtype=torch.float64)).item()

    reference = Laplace(0.0, 0.6) if kind == "laplace" else Normal(0.0, 0.6**0.5)
    assert surprise(0.6) == pytest.approx(-reference.log_prob(difference).mean().item())
    best = distance.item()
    assert surprise(best) < min(surprise(best * 0.99), surprise(best * 1.01))
    scale = torch.tensor(0.6, dtype=torch.float64)
    (slope,) = torch.autograd.grad(likelihood.surprise(distance.requires_grad_(), scale), distance)
    assert likelihood.slope(scale).item() == pytest.approx(slope.item())


def test_the_matched_divergence_is_that_from_the_best_normal():
    chance = torch.Generator().manual_seed(0)
    mean, log_std = (torch.randn(50, 3, generator=chance, dtype=torch.float64) for _ in range(2))
    posterior = Normal(mean, log_std.exp())
    best = objectives.matched_divergence(mean, log_std)
    variance = posterior.variance.mean(0) + mean.var(0, correction=0)
    for centre, spread, equal in ((0, 1, True), (0.1, 1, False), (0, 1.1, False), (0, 0.9, False)):
        other = kl_divergence(posterior, Normal(mean.mean(0) + centre, spread * variance.sqrt())).mean(0)
        assert torch.allclose(other, best) if equal else bool((other > best).all())


def test_collapsed_dimensions_are_counted():
    mean = torch.tensor([[-0.2, 0.05, 0.0], [0.2, -0.05, 0.0]])      # variances 0.04, 0.0025, 0
    assert objectives.active(mean) == 1
    assert objectives.informative(torch.tensor([0.009, 0.011, 2.0])) == 2
    assert objectives.informative(torch.tensor([0.009, 0.011, 2.0]), free=0.02) == 1


# Bounds, with a model whose evidence is known: z ~ N(0, 1), x ~ N(W z + b, s).


class Affine(nn.Module):
    """An encoder (x -> mean, log std) or a decoder (z -> images) that is one matrix."""

    def __init__(self, weight: Tensor, bias: Tensor, log_std: Tensor | None = None, side: int = 8):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.log_std, self.side = log_std, side
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor, labels: Tensor | None = None):
        y = x.flatten(1) @ self.weight.T + self.bias
        return y.unflatten(1, (1, self.side, self.side)) if self.log_std is None else (y, self.log_std.expand_as(y))


VARIANCE = 0.3


def affine(samples: int, widened: float) -> tuple[VAE, Tensor]:
    """Return a model with the posterior's std times `widened`, and the exact log evidence of each image [8]."""
    chance = torch.Generator().manual_seed(0)
    weight, bias = 0.3 * torch.randn(64, 1, generator=chance), torch.randn(64, generator=chance)
    precision = 1 + weight.square().sum() / VARIANCE
    gain = weight.T / VARIANCE / precision
    model = build(resolution=8, channels=1, latent=1, prior="normal", likelihood="gaussian", scale=VARIANCE,
                  free_bits=0.0, warmup=0.0, samples=samples)  # fmt: skip
    model.encoder = Affine(gain, -(gain @ bias), -0.5 * precision.log() + log(widened))
    model.decoder = Affine(weight, bias)
    evidence = MultivariateNormal(bias, weight @ weight.T + VARIANCE * torch.eye(64))
    return model, evidence.log_prob(images_of(model).flatten(1))


def images_of(model: VAE) -> Tensor:
    return batch_for(model, n=8, seed=1).images


def bound(model: VAE, seeds: int = 1) -> float:
    """Return the mean bound of log p(x), nats an image."""
    (phase,) = model.recipe().phases
    with torch.no_grad():
        totals = [phase.loss(model, Batch(images_of(model), None, Noise(seed))).total() for seed in range(seeds)]
    return -64 * torch.stack(totals).mean().item()


@pytest.mark.parametrize("samples", [1, 2, 50])
def test_with_the_true_posterior_every_bound_is_the_evidence(samples):
    model, evidence = affine(samples, widened=1.0)
    assert bound(model) == pytest.approx(evidence.mean().item(), abs=0.03 if samples > 1 else 0.7)
    if samples > 1:
        (phase,) = model.recipe().phases
        watched = phase.loss(model, Batch(images_of(model), None, Noise(0))).watch
        assert watched["effective_samples"].item() == pytest.approx(samples, rel=1e-3)


def test_the_importance_weighted_bound_comes_from_below_and_closer_with_more_latents():
    values = []
    for samples in (1, 2, 4, 16, 64):
        model, evidence = affine(samples, widened=3.0)
        values.append(bound(model, seeds=40) - evidence.mean().item())
    assert values == sorted(values)
    assert values[0] < -1.5
    assert -0.02 < values[-1] < 0


@pytest.mark.parametrize("likelihood", objectives.LIKELIHOODS)
@pytest.mark.parametrize("settings", [{"prior": "normal"}, {"prior": "flow"}, {"prior": "flow", "num_classes": 3}])
def test_one_latent_gives_the_evidence_lower_bound(likelihood, settings):
    model = build(likelihood=likelihood, free_bits=0.0, beta=0.7, warmup=0.5, **settings)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    batch = batch_for(model, progress=0.2)
    one = bounds.importance_weighted(model, batch)
    again = replace(batch, noise=Noise(0))
    elbo = bounds.evidence(model, again)
    assert torch.allclose(one.images, elbo.images, atol=1e-6)
    expected = elbo.terms.total().item()
    if settings["prior"] == "normal":      # whose divergence the one bound knows and the other estimates
        mean, log_std = model.encoder(batch.images)
        noise = Noise(0).normal(6, 5)
        gap = Normal(mean, log_std.exp()).log_prob(mean + log_std.exp() * noise).sum(1)
        gap = gap - Normal(0.0, 1.0).log_prob(mean + log_std.exp() * noise).sum(1)
        expected += 0.7 * 0.4 * (gap.mean() - elbo.terms.watch["kl"]).item() / batch.images[0].numel()
    assert one.terms.total().item() == pytest.approx(expected, rel=1e-5)
    assert one.terms.watch["error"].item() == pytest.approx(elbo.terms.watch["error"].item(), rel=1e-5)
    assert one.terms.watch["effective_samples"] == 1


@pytest.mark.parametrize("prior", ["normal", "flow"])
def test_the_importance_weighted_gradient_is_that_of_the_formula(prior):
    """log (1 / K) sum_k p(x | z_k) p(z_k) / q(z_k | x), written down with torch's distributions."""
    model = build(prior=prior, samples=3, free_bits=0.0, scale=0.4, num_classes=2)
    batch = batch_for(model)
    model.recipe().phases[0].loss(model, batch).total().backward()
    found = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    mean, log_std = model.encoder(batch.images)
    posterior, noise, log_weights = Normal(mean, log_std.exp()), Noise(0).normal(6, 3, 5), []
    for k in range(3):
        z = mean + log_std.exp() * noise[:, k]
        shown = Laplace(model.decoder(z, batch.labels), 0.4).log_prob(batch.images).sum((1, 2, 3))
        prior_density = model.log_prior(z, batch.labels)
        log_weights.append(shown + prior_density - posterior.log_prob(z).sum(1))
    exact = torch.stack(log_weights).logsumexp(0) - log(3)
    (-exact.mean() / batch.images[0].numel()).backward()
    for name, value in model.named_parameters():
        assert torch.allclose(found[name], value.grad, atol=1e-6, rtol=1e-3), name


def test_a_fixed_scale_is_kept():
    model = build(scale=0.25, likelihood="gaussian")
    (phase,) = model.recipe().phases
    assert phase.after is None
    terms = phase.loss(model, batch_for(model))
    expected = 0.5 * (terms.watch["mse"].item() / 0.25 + log(0.25) + log(2 * pi))
    assert terms.minimise["reconstruction"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 5}, "samples 5: the importance-weighted bound has no free bits; set free_bits=0"),
        ({"samples": 0}, "greater than or equal to 1"),
        ({"cycles": 0}, "greater than or equal to 1"),
        ({"cycles": 2.5}, "valid integer"),
        ({"scale": 0.0}, "greater than 0"),
    ],
)
def test_impossible_objectives_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        VAEConfig(**settings)


# What is watched.


@pytest.mark.parametrize("settings", [{"prior": "normal"}, {"prior": "flow"},
                                      {"prior": "normal", "samples": 3, "free_bits": 0.0}])  # fmt: skip
def test_the_divergence_of_each_dimension_is_watched(settings):
    model = build(**settings)
    watched = model.recipe().phases[0].loss(model, batch_for(model)).watch
    mean, log_std = model.encoder(batch_for(model).images)
    assert watched["kl_each"].shape == (5,)
    if settings["prior"] == "normal":
        exact = kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).mean(0)
        assert torch.allclose(watched["kl_each"], exact, atol=1e-5)
        assert watched["kl"].item() == pytest.approx(watched["kl_each"].sum().item(), rel=1e-5)


def test_after_a_step_the_divergences_are_those_of_the_whole_batch(tmp_path):
    seen: dict[int, Tensor] = {}

    def train(accumulate: int) -> None:
        model = build(prior="normal")
        (phase,) = model.recipe().phases

        def after(trained: zoo.Model, watched: dict[str, Tensor]) -> None:
            seen[accumulate] = watched["kl_each"].clone()
            phase.after(trained, watched)

        recipe = replace(model.recipe(), phases=(replace(phase, after=after),))
        zoo.train(model, emoji(16), kimg=0.008, batch=8, recipe=recipe, accumulate=accumulate,
                  out=tmp_path / str(accumulate))  # fmt: skip

    for accumulate in (1, 4):
        train(accumulate)
    assert seen[1].shape == (5,)
    assert torch.allclose(seen[1], seen[4], rtol=1e-4)


def test_the_autoencoder_of_latent_diffusion_watches_the_same():
    torch.manual_seed(0)
    model = zoo.create("vae", variant="kl", resolution=16, widths=(8, 8), depth=1, norm_groups=4, latent_channels=3)
    watched = model.recipe().phases[0].loss(model, batch_for(model)).watch
    mean, std = model.encode(batch_for(model).images)
    exact = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).mean(0)
    assert torch.allclose(watched["kl_each"], exact, atol=1e-5)
    assert watched["active"] == (mean.var(0, correction=0) > 0.01).sum()
    assert watched["informative"] == (exact > 0.01).sum()
    assert watched["kl_each"].shape == (3, 8, 8)


# Trainings of two hundred steps.


@cache
def emoji(resolution: int) -> ImageSet:
    return open_images("emoji", resolution=resolution, channels=3)


def trained(out: Path, *, recipe: Recipe | None = None, **settings) -> list[dict[str, float]]:
    """Return the mean terms of each tenth of a training."""
    model = build(**{"latent": 8, "width": 8, "widest": 16, **settings})
    run = zoo.train(model, emoji(16), kimg=3.2, batch=16, tick_kimg=0.32, sample_kimg=10, out=out, recipe=recipe)
    terms = [line["terms"] for line in run.log if "closing" not in line]
    return [{name.removeprefix("autoencoder."): value for name, value in each.items()} for each in terms]


OBJECTIVES = {
    "beta": ({"beta": 4.0}, "reconstruction"),
    "cycles": ({"cycles": 4, "warmup": 0.5, "prior": "normal"}, "reconstruction"),
    "optimal sigma": ({"likelihood": "gaussian"}, "reconstruction"),
    "fixed sigma": ({"likelihood": "gaussian", "scale": 0.05}, "reconstruction"),
    "free bits": ({"free_bits": 0.5, "prior": "normal"}, "reconstruction"),
    "importance-weighted, flow": ({"samples": 3, "free_bits": 0.0}, "bound"),
    "importance-weighted, normal": ({"samples": 3, "free_bits": 0.0, "prior": "normal"}, "bound"),
}
QUICK = ("importance-weighted, normal",)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OBJECTIVES]
)
def test_a_training_lowers_its_term(name, tmp_path):
    settings, term = OBJECTIVES[name]
    terms = trained(tmp_path / "run", **settings)
    assert terms[-1][term] < terms[0][term] - 0.2
    assert terms[-1]["mse"] < 0.75 * terms[0]["mse"]
    assert terms[-1]["informative"] > 0


@pytest.mark.slow
def test_a_weight_that_starts_anew_lets_the_divergence_rise_again(tmp_path):
    terms = trained(tmp_path / "run", cycles=2, warmup=0.8, prior="normal", beta=30.0, free_bits=0.0)
    kl = [each["kl"] for each in terms]
    assert max(kl[5:7]) > 1.3 * kl[4]      # a new cycle begins with the sixth tenth
    assert kl[9] < max(kl[5:7])


@pytest.mark.slow
def test_free_bits_keep_a_posterior_that_collapses_without_them(tmp_path):
    """With a variance above all that the images have, only noise is left to explain (arXiv:2510.01621)."""
    collapsing = {"likelihood": "gaussian", "scale": 50.0, "prior": "normal", "warmup": 0.0}
    without = trained(tmp_path / "without", free_bits=0.0, **collapsing)[-1]
    assert without["kl"] < 0.05
    assert without["informative"] == 0
    bits = trained(tmp_path / "with", free_bits=0.5, **collapsing)[-1]
    assert bits["kl"] > 8 * 0.3


@pytest.mark.parametrize("settings", [{"cycles": 3, "prior": "normal"}, {"samples": 2, "free_bits": 0.0}])
def test_a_training_that_broke_off_goes_on_as_if_it_had_not(settings, tmp_path):
    assert broken_off(tmp_path, lambda: build(**settings)) == []
