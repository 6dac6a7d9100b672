"""Projected discriminators (Sauer et al., 2021, arXiv:2111.01007): critics on the features of a pretrained network.

A frozen network sees the images; its feature maps of four resolutions are mixed by random, frozen convolutions; small
critics judge the mixtures. `project` gives any model such a discriminator in place of its own, `projected_recipe`
the recipe that goes with it. Layers and sizes are those of the authors' published code.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import sqrt
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu
from torch.nn.utils.parametrizations import spectral_norm

from zoo.adversarial import with_adversarial, without_penalties
from zoo.backbones import LITE0, backbone
from zoo.critics import NETWORK, CriticKind, checked, mark_fresh, wear
from zoo.errors import ConfigError, WeightsError
from zoo.losses import Adversarial, adversarial
from zoo.model import Model
from zoo.recipe import Recipe

LEVELS = 4                # feature maps that are judged, each half as large as the one before
SLOPE = 0.2               # of leaky ReLU
PIXELS = 224              # size the authors bring smaller images to
CRITIC_LR = 2e-4          # the authors', whatever the generator's
AUGMENT = ("color", "translation", "cutout")


class ProjectedConfig(BaseModel):
    """What config.json may say of a projected discriminator. Strict and frozen: it comes from strangers."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    kind: Literal["projected"] = "projected"
    backbone: str = Field(LITE0, pattern=r"^[a-z][a-z0-9_.]{0,99}$", description="timm's name of the frozen network")
    resolution: int = Field(PIXELS, ge=32, le=1024, multiple_of=32, description="size that images are brought to")
    channels: int = Field(64, ge=8, le=512, multiple_of=8, description="channels of the largest mixed feature map")


def frozen(module: nn.Module) -> nn.Module:
    """Make every parameter a buffer, in place: no recipe can train it, and it is saved with the rest."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return module


class Features(nn.Module):
    """Images [N, C, H, W] in [-1, 1] -> four feature maps of the frozen network, the largest first."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ProjectedConfig, *, pretrained: bool):
        super().__init__()
        try:
            network: Any = backbone(config.backbone, weights=pretrained, features_only=True)
        except WeightsError as error:
            raise ConfigError(f"backbone={config.backbone!r}: {error}") from error
        info = network.feature_info
        self.channels = tuple(info.channels()[-LEVELS:])
        reductions = info.reduction()[-LEVELS:]
        if len(reductions) < LEVELS or any(b != 2 * a for a, b in pairwise(reductions)) or reductions[-1] != 32:
            raise ConfigError(
                f"backbone={config.backbone!r} gives maps of 1/{', 1/'.join(map(str, info.reduction()))} of its input; "
                f"a projected critic needs 1/4, 1/8, 1/16, 1/32: take another timm model, such as {LITE0!r}."
            )
        self.network, self.size = frozen(network), config.resolution
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = colours(images)
        smaller = self.size < max(images.shape[2:])
        x = interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=smaller)
        maps: list[Tensor] = self.network(((x + 1) / 2 - self.mean) / self.std)
        return maps[-LEVELS:]


def colours(images: Tensor) -> Tensor:
    """Return RGB [N, 3, H, W] of grey, RGB or RGBA images in [-1, 1]; what is transparent shows mid grey."""
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    return images[:, :3] * ((images[:, 3:] + 1) / 2) if images.shape[1] == 4 else images


class Mixing(nn.Module):
    """Mixes feature maps over channels, then over scales, by random convolutions (section 3, CCM and CSM).

    From the smallest map up, a mixture joins the map of its size, is doubled and passed through the next convolution.
    """

    def __init__(self, inputs: tuple[int, ...], channels: int):
        super().__init__()
        widths = [channels << level for level in range(LEVELS)]
        self.across_channels = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(inputs, widths))
        self.channels = [channels, *widths[:-1]]
        self.across_scales = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, self.channels))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return four mixtures, each twice the size of the feature map that it begins from, the largest first."""
        mixed: list[Tensor] = []
        layers = zip(self.across_channels, self.across_scales, maps)
        for over_channels, over_scales, features in reversed(list(layers)):
            x = over_channels(features)
            x = x + mixed[0] if mixed else x
            x = interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            mixed.insert(0, over_scales(x))
        return mixed


class Head(nn.Module):
    """One small critic: mixed features [N, channels, size, size] -> logits [N, K], one for each place.

    Args:
        size: of its input when images are 256 pixels; every head halves its own down to 8.
        kernel: of the last convolution.
    """

    def __init__(self, config: ProjectedConfig, channels: int, size: int, kernel: int, classes: int):
        super().__init__()
        steps = [size >> step for step in range((size // 8).bit_length())]      # such as 64, 32, 16, 8
        widths = [channels, *(config.channels * 64 // min(64, step) for step in steps[1:])]
        self.down = nn.Sequential(*(Down(a, b) for a, b in pairwise(widths)))
        compared = 64 if classes else 1
        self.judge = spectral_norm(nn.Conv2d(widths[-1], compared, kernel, bias=False))
        if classes:      # the product of what is seen and of the class (Miyato and Koyama, 2018, arXiv:1802.05637)
            self.embedding = nn.Linear(classes, 128, bias=False)
            nn.init.normal_(self.embedding.weight)
            self.compare = nn.Linear(128, compared)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = self.judge(self.down(x))
        if labels is not None:
            wanted = leaky_relu(self.compare(self.embedding(labels)), SLOPE)
            x = (x * wanted[:, :, None, None]).sum(1) / sqrt(wanted.shape[1])
        return x.flatten(1)


class Down(nn.Module):
    """[N, a, h, w] -> [N, b, h/2, w/2]."""

    def __init__(self, a: int, b: int):
        super().__init__()
        self.conv = spectral_norm(nn.Conv2d(a, b, 4, 2, 1))
        self.norm = nn.BatchNorm2d(b)

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(self.norm(self.conv(x)), SLOPE)


class Heads(nn.Module):
    """The small critics, one for each mixture."""

    def __init__(self, config: ProjectedConfig, channels: list[int], classes: int):
        super().__init__()
        # Whatever its input's size, a head ends at 1/32 of the image's; small images leave less than a 4x4 map there.
        kernel = min(4, config.resolution // 32)
        self.levels = nn.ModuleList(
            Head(config, width, 128 >> level, kernel, classes) for level, width in enumerate(channels)
        )

    def forward(self, mixed: list[Tensor], labels: Tensor | None) -> Tensor:
        return torch.cat([head(x, labels) for head, x in zip(self.levels, mixed)], dim=1)


class ProjectedDiscriminator(nn.Module):
    """Images [N, channels, H, W] in [-1, 1] and one-hot labels -> logits [N, K], those of all heads side by side.

    What is frozen lies in buffers and comes first, so freezing the half of a critic next to the image leaves the heads.
    """

    def __init__(self, config: ProjectedConfig, classes: int, *, pretrained: bool):
        super().__init__()
        self.features = Features(config, pretrained=pretrained)
        mixing = Mixing(self.features.channels, config.channels)
        self.mixing = frozen(mixing)
        self.heads = Heads(config, mixing.channels, classes)

    def train(self, mode: bool = True) -> Self:
        """Set the heads alone: the frozen network's batch norms keep what they were trained with."""
        super().train(mode)
        self.features.eval()
        return self

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.heads(self.mixing(self.features(images)), labels)
        return logits


def project(
    model: Model, backbone: str = LITE0, *, resolution: int | None = None, channels: int = 64, pretrained: bool = True
) -> Model:
    """Give a model a projected discriminator in place of its own, and return it.

    Args:
        backbone: timm's name of a convolutional network with maps of 1/4 to 1/32 of its input.
        resolution: size that images are brought to, a multiple of 32; None: 224, or that of larger images. 96 or 128
            is several times faster on a CPU; below four times the image's size, the largest map is coarser than it.
        channels: of the largest mixed feature map; the heads grow with it.
        pretrained: False leaves the frozen network random.

    Raises:
        Unsupported: the model has no discriminator to replace.
        ConfigError, UnknownName: no such network, or one whose weights are not to be had.
    """
    if resolution is None:
        resolution = max(PIXELS, -(-model.config.resolution // 32) * 32)
    config = {"kind": "projected", "backbone": backbone, "resolution": resolution, "channels": channels}
    return mark_fresh(wear(model, checked(model, config), partial(_built, pretrained=pretrained)))


def projected_recipe(recipe: Recipe, loss: Adversarial | None = None) -> Recipe:
    """Return an architecture's recipe for a projected discriminator.

    As the authors train: hinge loss on every head, no gradient penalty, the critic's learning rate 2e-4, and
    DiffAugment unless the recipe augments already. The generator's own turns, such as path length, stay. A phase whose
    loss does not say which adversarial loss it uses keeps it, and sees the logits of all heads.

    Args:
        loss: another adversarial loss than hinge.
    """
    changed = with_adversarial(without_penalties(recipe), loss or adversarial("hinge"))
    rate = CRITIC_LR / changed.lr
    phases = tuple(replace(phase, rate=rate) if phase.trains == (NETWORK,) else phase for phase in changed.phases)
    return replace(changed, phases=phases, critics=changed.critics or (NETWORK,), augment=changed.augment or AUGMENT)


def _built(model: Model, config: ProjectedConfig, *, pretrained: bool = False) -> nn.Module:
    return ProjectedDiscriminator(config, model.config.num_classes, pretrained=pretrained)


PROJECTED = CriticKind(ProjectedConfig, _built, projected_recipe)
