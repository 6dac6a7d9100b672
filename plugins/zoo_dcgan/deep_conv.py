"""StudioGAN's DCGAN (Kang et al., 2023, arXiv:2206.09479): dense layers at both ends, two convolutions a halving.

It differs from Radford's in structure, not only in sizes: a dense layer makes the 4x4 image of features, a 3x3
convolution the colours; the discriminator sums its last features over places. Classes may enter by the gains of batch
norm and by a projection.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self, TypeVar, cast

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from zoo.model import Model, ModelConfig
from zoo.noise import Noise
from zoo.recipe import Recipe
from zoo_dcgan.model import papers_recipe

BOTTOM = 4      # height and width where the generator starts
Width = Annotated[int, Field(ge=1, le=8192)]
Widths = Annotated[tuple[Width, ...], Field(min_length=2, max_length=10, strict=False)]
Layer = TypeVar("Layer", bound=nn.Module)


class DeepConvConfig(ModelConfig):
    """Sizes of the published network, which was made for CIFAR-10."""

    variant: Literal["deep_conv"] = "deep_conv"
    latent: int = Field(128, ge=1, le=8192, description="numbers in z")
    generator_widths: Widths = Field((512, 256, 128, 64), description="channels at 4, 8, 16 ... pixels")
    discriminator_widths: Widths = Field(
        (64, 128, 256, 512), description="channels after each halving, and of the last convolution"
    )
    norm_eps: float = Field(1e-4, gt=0, le=0.1, description="added to the variance in batch norm")
    spectral_discriminator: bool = Field(False, description="spectral norm in the discriminator instead of batch norm")
    projection: bool = Field(True, description="the logit depends on the class, by the product with its embedding")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        made = BOTTOM << (len(self.generator_widths) - 1)
        if made != self.resolution:
            raise ValueError(f"{len(self.generator_widths)} generator_widths make {made} pixels, not {self.resolution}")
        halvings = len(self.discriminator_widths) - 1
        if self.resolution >> halvings < 1:
            raise ValueError(f"discriminator_widths halve {self.resolution} pixels {halvings} times")
        return self


def _started(layer: Layer) -> Layer:
    """Return the layer with an orthogonal weight and a bias of zeros."""
    nn.init.orthogonal_(layer.get_parameter("weight"))
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.get_parameter("bias"))
    return layer


class ConditionalNorm(nn.Module):
    """Batch norm whose gain (around 1) and bias are looked up by the class; x [N, C, H, W], labels [N, classes]."""

    def __init__(self, classes: int, channels: int, eps: float):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps, affine=False)
        self.gain = _started(nn.Linear(classes, channels, bias=False))
        self.bias = _started(nn.Linear(classes, channels, bias=False))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        gain: Tensor = 1 + self.gain(labels)
        bias: Tensor = self.bias(labels)
        normal: Tensor = self.norm(x)
        return normal * gain[:, :, None, None] + bias[:, :, None, None]


class PlainNorm(nn.BatchNorm2d):
    """Batch norm with a learned gain and bias, whatever the class."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(x)


class GeneratorBlock(nn.Module):
    """[N, a, h, w] -> [N, b, 2h, 2w]."""

    def __init__(self, a: int, b: int, config: DeepConvConfig):
        super().__init__()
        self.conv = _started(nn.ConvTranspose2d(a, b, 4, 2, 1))
        classes, eps = config.num_classes, config.norm_eps
        self.norm = ConditionalNorm(classes, b, eps) if classes else PlainNorm(b, eps)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        out: Tensor = self.norm(self.conv(x), labels)
        return out.relu()


class Generator(nn.Module):
    """z [N, latent] and class rows [N, classes] -> images [N, channels, resolution, resolution] in [-1, 1]."""

    def __init__(self, config: DeepConvConfig):
        super().__init__()
        widths = config.generator_widths
        self.head = _started(nn.Linear(config.latent, widths[0] * BOTTOM * BOTTOM))
        self.blocks = nn.ModuleList(GeneratorBlock(a, b, config) for a, b in pairwise(widths))
        self.to_image = _started(nn.Conv2d(widths[-1], config.channels, 3, padding=1))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        x: Tensor = self.head(z).unflatten(1, (-1, BOTTOM, BOTTOM))
        for block in self.blocks:
            x = block(x, labels)
        image: Tensor = self.to_image(x).tanh()
        return image


class Discriminator(nn.Module):
    """Images [N, channels, resolution, resolution] and class rows [N, classes] -> logits [N, 1]."""

    def __init__(self, config: DeepConvConfig):
        super().__init__()
        spectral = config.spectral_discriminator

        def normal(layer: Layer) -> Layer:
            # torch's: one power iteration in each training step, and the vectors as they are in evaluation.
            started = _started(layer)
            return cast(Layer, spectral_norm(started)) if spectral else started

        def unit(a: int, b: int, kernel: int, stride: int) -> nn.Sequential:
            norm = nn.Identity() if spectral else nn.BatchNorm2d(b, config.norm_eps)
            return nn.Sequential(normal(nn.Conv2d(a, b, kernel, stride, 1)), norm, nn.ReLU())

        *widths, last = (config.channels, *config.discriminator_widths)
        self.blocks = nn.ModuleList(nn.Sequential(unit(a, b, 3, 1), unit(b, b, 4, 2)) for a, b in pairwise(widths))
        self.last = unit(widths[-1], last, 3, 1)
        self.linear = normal(nn.Linear(last, 1))
        classes = config.num_classes if config.projection else 0
        self.embedding = normal(nn.Embedding(classes, last)) if classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        x = images
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.last(x).sum((2, 3))
        logits: Tensor = self.linear(features)
        if self.embedding is not None and labels is not None:
            # Miyato and Koyama, 2018, arXiv:1802.05637, eq. 5; the product takes soft labels too.
            logits = logits + ((labels @ self.embedding.weight) * features).sum(1, keepdim=True)
        return logits


class DeepConvGAN(Model):
    """Networks: `generator`, `discriminator`; class-conditional when `num_classes` is given."""

    Config = DeepConvConfig
    config: DeepConvConfig

    def __init__(self, config: DeepConvConfig):
        super().__init__(config)
        self.latent_size = config.latent
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)

    def generate(self, z: Tensor, labels: Tensor | None, *, psi: float = 1.0, chance: Noise | None = None) -> Tensor:
        """Return raw images; `z` is used as it is."""
        images: Tensor = self.averaged("generator")(z, labels)
        return images

    def recipe(self) -> Recipe:
        """Adam with learning rate 2e-4 and beta1 0.5 and the non-saturating loss, as for Radford's."""
        return papers_recipe()
