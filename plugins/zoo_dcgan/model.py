"""DCGAN (Radford et al., 2016, arXiv:1511.06434): strided convolutions, batch norm, no dense layers."""

from __future__ import annotations

from itertools import pairwise
from math import log2
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.func import functional_call

from zoo.adversarial import adversarial_phases
from zoo.errors import ConfigError
from zoo.losses import adversarial
from zoo.model import Model, ModelConfig, power_of_two
from zoo.noise import Noise
from zoo.recipe import Recipe


class DCGANConfig(ModelConfig):
    """Section 3 of the paper: 64x64, z of 100 numbers, 64 channels at the image, doubling towards 4x4."""

    resolution: int = Field(64, ge=16, le=1024, description="height and width of the images, a power of two")
    latent: int = Field(100, ge=1, le=8192, description="numbers in z")
    generator_width: int = Field(64, ge=1, le=1024, description="generator channels next to the image")
    discriminator_width: int = Field(64, ge=1, le=1024, description="discriminator channels next to the image")
    discriminator_norm: bool = Field(True, description="discriminator's batch norm; off for penalties of its slope")
    image_kernel: Literal[4, 1] = Field(4, description="generator's last layer: 4 doubles the resolution, 1 keeps it")
    judged_side: Literal[4, 2] = Field(4, description="height and width of what the discriminator's last layer sees")

    _power_of_two = field_validator("resolution")(power_of_two)


class Generator(nn.Module):
    """z [N, latent] and one-hot labels [N, classes] -> images [N, channels, resolution, resolution] in [-1, 1]."""

    def __init__(self, config: DCGANConfig):
        super().__init__()
        smallest = 2 if config.image_kernel == 4 else 1      # share of the resolution that the last layer gets
        depth = int(log2(config.resolution // 4 // smallest)) + 1
        widths = [config.generator_width << i for i in reversed(range(depth))]      # widest at 4x4
        self.head = nn.ConvTranspose2d(config.latent + config.num_classes, widths[0], 4, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        # Named by the share of the resolution that comes out, so that equal names mean equal widths at any resolution.
        shares = [f"1_{smallest << i}" for i in reversed(range(depth - 1))]
        self.blocks = nn.ModuleDict({part: GeneratorBlock(a, b) for part, (a, b) in zip(shares, pairwise(widths))})
        self.to_image = nn.ConvTranspose2d(
            widths[-1], config.channels, config.image_kernel, stride=smallest, padding=smallest - 1
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        # A conditional DCGAN takes the label beside z (Mirza and Osindero, 2014, arXiv:1411.1784).
        x = z if labels is None else torch.cat([z, labels], dim=1)
        x = self.norm(self.head(x[:, :, None, None])).relu()
        for block in self.blocks.values():
            x = block(x)
        image: Tensor = self.to_image(x).tanh()
        return image


class GeneratorBlock(nn.Module):
    """[N, a, h, w] -> [N, b, 2h, 2w]."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(b)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x)).relu()
        return out


class Discriminator(nn.Module):
    """Images [N, channels, resolution, resolution] and one-hot labels -> logits [N, 1]."""

    def __init__(self, config: DCGANConfig):
        super().__init__()
        depth = int(log2(config.resolution // config.judged_side))
        widths = [config.discriminator_width << i for i in range(depth)]             # narrowest at the image
        self.from_image = nn.Conv2d(config.channels + config.num_classes, widths[0], 4, 2, 1)
        self.blocks = nn.ModuleList(DiscriminatorBlock(a, b, config.discriminator_norm) for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], 1, config.judged_side)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is not None:      # a constant plane for each class
            planes = labels[:, :, None, None].expand(-1, -1, *images.shape[2:])
            images = torch.cat([images, planes.to(images.dtype)], dim=1)
        x = nn.functional.leaky_relu(self.from_image(images), 0.2)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x).flatten(1)
        return logits


class DiscriminatorBlock(nn.Module):
    """[N, a, h, w] -> [N, b, h/2, w/2]."""

    def __init__(self, a: int, b: int, norm: bool):
        super().__init__()
        self.conv = nn.Conv2d(a, b, 4, 2, 1, bias=not norm)
        # By it the logit of an image depends on its batch, and a penalty of a critic's slope is no image's own.
        self.norm = nn.BatchNorm2d(b) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(self.norm(self.conv(x)), 0.2)


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Draw convolutions from N(0, 0.02) and batch-norm gains from N(1, 0.02) (section 4)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)


@torch.no_grad()
def initialise_without_norm(network: nn.Module) -> None:
    """Draw convolutions so that what they are given keeps its size (He et al., 2015, arXiv:1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.2)


def by_the_batch(network: nn.Module, *inputs: Tensor | None) -> Tensor:
    """Return the network's output with batch norm by the statistics of the batch, leaving the running ones alone."""
    running = {name: buffer.clone() for name, buffer in network.named_buffers()}
    was_training = network.training
    network.train()
    try:
        output: Tensor = functional_call(network, running, inputs)      # it updates the clones
    finally:
        network.train(was_training)
    return output


def papers_recipe() -> Recipe:
    """Return section 4's recipe: Adam with learning rate 2e-4 and beta1 0.5, non-saturating loss."""
    return Recipe(
        phases=adversarial_phases(adversarial("nonsaturating")),
        averaged=("generator",),
        critics=("discriminator",),
        batch=64,
        lr=2e-4,
        betas=(0.5, 0.999),
        ema_kimg=10.0,
    )


class DCGAN(Model):
    """A deep convolutional GAN; class-conditional when `num_classes` is given."""

    Config = DCGANConfig
    config: DCGANConfig

    def __init__(self, config: DCGANConfig):
        super().__init__(config)
        self.latent_size = config.latent
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)
        initialise(self)
        if not config.discriminator_norm:
            initialise_without_norm(self.discriminator)

    def generate(
        self,
        z: Tensor,
        labels: Tensor | None,
        *,
        psi: float = 1.0,
        chance: Noise | None = None,
        statistics: Literal["running", "batch"] = "running",
    ) -> Tensor:
        """Return raw images.

        `statistics` is what batch norm goes by: "running", those gathered in training, so that an image depends on its
        latent alone; or "batch", those of these very latents (of each 64, in `sample`), as the original code samples.
        """
        generator = self.averaged("generator")
        if statistics not in ("running", "batch"):
            raise ConfigError(f"statistics={str(statistics)[:60]!r}: give 'running' or 'batch'.")
        images: Tensor = generator(z, labels) if statistics == "running" else by_the_batch(generator, z, labels)
        return images

    def recipe(self) -> Recipe:
        """Section 4: Adam with learning rate 2e-4 and beta1 0.5, non-saturating loss."""
        return papers_recipe()
