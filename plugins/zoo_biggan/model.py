"""BigGAN and BigGAN-deep (Brock et al., 2019, arXiv:1809.11096): large-scale class-conditional image synthesis."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, sqrt
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from zoo.adversarial import discriminator_loss, generator_loss
from zoo.errors import ConfigError
from zoo.losses import Adversarial, adversarial
from zoo.model import Model, ModelConfig
from zoo.noise import Noise, key
from zoo.penalties import orthogonality
from zoo.recipe import Batch, Phase, Recipe, Terms
from zoo_biggan.config import BigGANConfig
from zoo_biggan.discriminator import Discriminator
from zoo_biggan.generator import Generator
from zoo_biggan.layers import BatchNorm, settle

BOUND = 2.0          # a truncated latent's numbers lie within psi times this


class BigGAN(Model):
    """Networks: `generator`, `discriminator`. Latents: standard normal [N, latent_size]."""

    Config: ClassVar[type[ModelConfig]] = BigGANConfig
    scales = ("generator.*norm*.gain*", "generator.*norm*.bias*")
    config: BigGANConfig

    def __init__(self, config: BigGANConfig):
        super().__init__(config)
        self.latent_size = config.latent_size
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    def generate(self, z: Tensor, labels: Tensor | None, *, psi: float, chance: Noise) -> Tensor:
        """Return images in [-1, 1]; `psi` picks the batch-norm statistics, `z` is used as it is."""
        images: Tensor = self.averaged("generator")(z, labels, psi)
        return images

    def latent(self, n: int, noise: Noise, psi: float = 1.0) -> Tensor:
        """Return latents [n, latent_size]: standard normal at psi = 1, else psi times a normal within [-2, 2].

        The truncation trick (Brock et al., 2019, section 3.1) as the published generators use it: numbers outside the
        bounds are drawn again, here by the inverse of the distribution function, so that each takes one draw.
        """
        if psi == 1:
            return noise.normal(n, self.latent_size)
        inside = erf(BOUND / sqrt(2))
        uniform = noise.uniform(n, self.latent_size)
        return psi * sqrt(2) * torch.erfinv((2 * uniform - 1) * inside)

    def recipe(self) -> Recipe:
        """Return hinge loss, two time scales and orthogonal regularisation, set for batches of 32 to 64 images.

        The paper's rates (5e-5 and 2e-4) belong to its batch of 2048; the generator's is kept at a quarter of the
        discriminator's.
        """
        hinge = adversarial("hinge")
        return Recipe(
            phases=(
                Phase("discriminator", ("discriminator",), discriminator_loss(hinge)),
                Phase("generator", ("generator",), GeneratorTurn(hinge, self.config.orthogonal), rate=0.25),
            ),
            averaged=("generator",),
            critics=("discriminator",),
            batch=64,
            lr=4e-4,
            betas=(0.0, 0.999),
            eps=1e-6,
        )

    def refit(self) -> None:
        """Fit stored spectral vectors to the weights that grew or shrank: parts of old ones belong to no weight."""
        for name, module in self.named_modules():
            if self.adapted.get(f"{name}.weight", "copied") != "copied":
                settle(module, 10)

    def finish(self) -> None:
        """Measure the statistics that each truncation is sampled with."""
        self.standing_statistics(512)

    @torch.no_grad()
    def standing_statistics(self, samples: int = 2048, batch: int = 64, seed: int = 0) -> Self:
        """Measure the batch-norm statistics of the averaged generator anew, for each truncation that it keeps them for.

        Each set is the mean over batches of latents at its psi and classes drawn uniformly. Call it once after
        training: running averages lag behind averaged weights, and know only psi = 1.

        Args:
            samples: images a truncation; rounded up to whole batches.
            batch: images a batch.
            seed: of the latents and classes.

        Raises:
            ConfigError: fewer than one sample, or batches of fewer than two.
        """
        if samples < 1 or batch < 2:
            raise ConfigError(f"samples={samples}, batch={batch}: give one sample or more, in batches of two or more.")
        generator = self.averaged("generator")
        norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
        was_training = generator.training
        generator.eval()
        try:
            rows = [self._measure(row, -(-samples // batch), batch, seed) for row in range(self.config.statistics)]
        finally:
            generator.train(was_training)
        for i, norm in enumerate(norms):
            norm.keep([measured[i] for measured in rows])
        return self

    def _measure(self, row: int, batches: int, batch: int, seed: int) -> list[tuple[Tensor, Tensor]]:
        """Return the mean and variance of each channel in each norm of the averaged generator, for one truncation."""
        generator = self.averaged("generator")
        norms = [module for module in generator.modules() if isinstance(module, BatchNorm)]
        psi = row / (self.config.statistics - 1) if self.config.statistics > 1 else 1.0
        noise = Noise(key("statistics", seed, row), device=self.device)
        for norm in norms:
            norm.training = True                           # itself alone: spectral norm's vectors stand still
        try:
            for i in range(batches):
                for norm in norms:
                    norm.momentum = 1 / (i + 1)            # a plain mean over the batches
                z = self.latent(batch, noise, psi)
                classes = noise.integers(self.config.num_classes, batch) if self.config.num_classes else None
                generator(z, None if classes is None else one_hot(classes, self.config.num_classes).float())
        finally:
            for norm in norms:
                norm.momentum = BatchNorm.momentum
                norm.training = False
        return [norm.latest() for norm in norms]


@dataclass(frozen=True)
class GeneratorTurn:
    """The generator's adversarial loss plus orthogonal regularisation of every weight but the shared embedding."""

    adversarial: Adversarial
    strength: float

    def __call__(self, model: Model, batch: Batch) -> Terms:
        terms = generator_loss(self.adversarial)(model, batch)
        if not self.strength:
            return terms
        named = model.get_submodule("generator").named_parameters()
        weights: list[Tensor] = [weight for name, weight in named if weight.ndim > 1 and name != "embedding.weight"]
        with torch.autocast(weights[0].device.type, enabled=False):
            penalty = orthogonality(weights)
        return Terms({**terms.minimise, "orthogonal": self.strength * penalty}, terms.watch)
