"""Mixtures of Gaussians in the plane: data, a tiny GAN of points, its training and what its samples are worth.

Points are images [N, 2, 1, 1] of a model of two channels and one pixel, so that the losses, phases, additions and
optimisers of zoo train it as they are. The loop alone is this file's own: a training of `zoo.train` reads 8-bit images,
which are too coarse for a standard deviation of 0.01.

Data, networks and evaluation: Lin et al., 2018, arXiv:1712.04086, section 4.1 and the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from arms import recipe_of
from pydantic import Field
from torch import Tensor, nn

from zoo.adversarial import adversarial_phases
from zoo.losses import adversarial
from zoo.model import Model, ModelConfig
from zoo.noise import Noise, key
from zoo.recipe import Batch, Recipe
from zoo.training.averaging import decay, follow
from zoo.training.optimisers import Player, learning_rate, momenta, players

SAMPLES = 2500           # judged at a time
TRAINING = 100_000       # points that are learnt from
SHOWN = 300              # points that a result holds, to be drawn
HIGH_QUALITY = 3.0       # standard deviations from the nearest mode


@dataclass(frozen=True)
class Mixture:
    """Equal shares of round Gaussians: means [modes, 2], all with one standard deviation."""

    means: Tensor
    spread: float

    def draw(self, n: int, noise: Noise) -> Tensor:
        """Return points [n, 2]."""
        return self.means[noise.integers(len(self.means), n)] + self.spread * noise.normal(n, 2)

    def judged(self, points: Tensor) -> dict[str, float]:
        """Return what points [n, 2] are worth.

        A point is of high quality if it is within three standard deviations of the nearest mode; a mode is covered if
        one such point is at it. The reverse KL is that of the modes' shares of these points from equal shares, in nats.
        """
        distance = torch.cdist(points.double(), self.means.double()) / self.spread
        nearest = distance.min(1)
        good = nearest.values < HIGH_QUALITY
        counts = torch.bincount(nearest.indices[good], minlength=len(self.means)).double()
        shares = counts[counts > 0] / counts.sum()
        kl = float((shares * (shares * len(self.means)).log()).sum()) if len(shares) else math.inf
        return {"modes": len(shares), "high_quality": float(good.double().mean()), "reverse_kl": kl}


def ring() -> Mixture:
    """Eight modes on a circle of radius 1."""
    angle = torch.arange(8) * (2 * math.pi / 8)
    return Mixture(torch.stack([angle.cos(), angle.sin()], dim=1), 0.01)


def grid() -> Mixture:
    """Twenty-five modes on a grid, 2 apart."""
    side = torch.arange(-4.0, 5.0, 2.0)
    return Mixture(torch.cartesian_prod(side, side), 0.05)


MIXTURES: dict[str, Callable[[], Mixture]] = {"ring": ring, "grid": grid}


class PointsConfig(ModelConfig):
    """The networks of PacGAN's experiments."""

    resolution: int = Field(1)
    channels: int = Field(2)
    latent: int = Field(2)
    generator_width: int = Field(400)
    generator_norm: bool = Field(True, description="batch norm before each ReLU")
    discriminator_width: int = Field(200)
    pieces: int = Field(5, description="linear functions that a maxout unit is the largest of")


class Maxout(nn.Module):
    """[N, a] -> [N, b]: the largest of so many linear functions (Goodfellow et al., 2013, arXiv:1302.4389)."""

    def __init__(self, a: int, b: int, pieces: int):
        super().__init__()
        self.linear, self.pieces = nn.Linear(a, b * pieces), pieces

    def forward(self, x: Tensor) -> Tensor:
        largest: Tensor = self.linear(x).unflatten(1, (-1, self.pieces)).max(2).values
        return largest


class Generator(nn.Module):
    """z [N, latent] -> points [N, 2, 1, 1]."""

    def __init__(self, config: PointsConfig):
        super().__init__()
        layers: list[nn.Module] = []
        wide = config.latent
        for _ in range(4):
            layers.append(nn.Linear(wide, config.generator_width))
            if config.generator_norm:
                layers.append(nn.BatchNorm1d(config.generator_width))
            layers.append(nn.ReLU())
            wide = config.generator_width
        self.layers = nn.Sequential(*layers, nn.Linear(wide, config.channels))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        points: Tensor = self.layers(z)[:, :, None, None]
        return points


class Discriminator(nn.Module):
    """Points [N, 2, 1, 1], or packs of m [N, 2 m, 1, 1] -> logits [N, 1]."""

    def __init__(self, config: PointsConfig):
        super().__init__()
        wide = config.discriminator_width
        units = (Maxout(before, wide, config.pieces) for before in (config.channels, wide, wide))
        self.layers = nn.Sequential(*units, nn.Linear(wide, 1))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.layers(images.flatten(1))
        return logits


class Points(Model):
    """A GAN of points in the plane."""

    Config = PointsConfig
    config: PointsConfig

    def __init__(self, config: PointsConfig):
        super().__init__(config)
        self.latent_size = config.latent
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    def generate(self, z: Tensor, labels: Tensor | None, *, psi: float = 1.0, chance: Noise | None = None) -> Tensor:
        points: Tensor = self.averaged("generator")(z, labels)
        return points

    def recipe(self) -> Recipe:
        """Return PacGAN's: Adam with learning rate 1e-4 and beta1 0.8, batches of 100, non-saturating loss."""
        return Recipe(adversarial_phases(adversarial("nonsaturating")), batch=100, lr=1e-4, betas=(0.8, 0.999))


def play(
    model: Points, recipe: Recipe, movers: Mapping[tuple[str, ...], Player], batch: Batch, step: int, steps: int
) -> bool:
    """Play one step of a recipe; return whether all its gradients were finite."""
    lr, betas = learning_rate(recipe, step, steps), momenta(recipe, batch.progress)
    finite = True
    for phase in recipe.phases:
        if step % phase.every:
            continue
        player = movers[phase.trains]
        model.requires_grad_(False)
        player.thaw()
        torch.autograd.backward(phase.loss(model, batch).total() * player.weight(phase))
        norm = player.norms()
        if not bool(norm.isfinite()):
            player.skip()
            finite = False
            continue
        player.apply(lr * phase.rate, betas, recipe.clip_norm, norm)
        if phase.project is not None:
            for name in phase.trains:
                phase.project(model.get_submodule(name))
    return finite


@torch.no_grad()
def sampled(model: Points, n: int, seed: int) -> Tensor:
    """Return points [n, 2] of the averaged generator, with running statistics, all at once."""
    model.eval()
    points = model.generate(model.latent(n, Noise(key("sample", seed))), None).flatten(1)
    model.train()
    return points


def trained(settings: Mapping[str, Any], seed: int, *, checks: int = 20) -> dict[str, Any]:
    """Train an arm and return what 2,500 of its points are worth at the end, and so many times on the way."""
    torch.manual_seed(key("weights", seed))
    mixture = MIXTURES[settings["mixture"]]()
    model = Points(PointsConfig(**settings.get("model", {})))
    recipe = recipe_of(model, settings)
    movers = players(model, recipe, scale_gradients=False)
    model.follow(recipe.averaged).train()
    data = mixture.draw(TRAINING, Noise(key("data", seed)))[:, :, None, None]
    history, broken, steps = [], 0, settings["steps"]
    for step in range(steps):
        noise = Noise(key("step", seed, step))
        reals = data[noise.integers(TRAINING, recipe.batch)]
        broken += not play(model, recipe, movers, Batch(reals, None, noise, step / steps), step, steps)
        follow(model, decay(recipe, (step + 1) * recipe.batch))
        if (step + 1) * checks // steps > step * checks // steps:
            points = sampled(model, SAMPLES, seed)
            history.append({"step": step + 1, **mixture.judged(points)})
    last = {name: value for name, value in history[-1].items() if name != "step"}
    late = history[len(history) // 2 :]
    shown = [[round(value, 3) for value in point] for point in points[:SHOWN].tolist()]
    return {**last, "least_modes_late": min(each["modes"] for each in late), "broken_steps": broken,
            "history": history, "points": shown}  # fmt: skip
