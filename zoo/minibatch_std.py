"""Minibatch standard deviation: a critic that sees how much images differ (Karras et al., 2018, arXiv:1710.10196).

A generator that makes one image of many latents is found out by one look at several of its images, which a critic that
judges each by itself never takes. Section 3 of the paper gives a late layer the standard deviation of its features
over a small group, a simpler minibatch discrimination (Salimans et al., 2016, arXiv:1606.03498, section 3.2). StyleGAN
has such a layer. A critic that has none gets it here, before its first layer.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from zoo.critics import NETWORK, CriticKind, attach, check_own, mark_fresh
from zoo.errors import ConfigError
from zoo.model import Model

EPS = 1e-8      # under the root, whose first and second derivatives stay finite where all images of a group are alike


class MinibatchStdConfig(BaseModel):
    """What config.json may say of a critic that sees standard deviations."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    kind: Literal["minibatch_std"] = "minibatch_std"
    group: int = Field(4, ge=2, le=1024, description="images that are compared; all of a batch that it does not divide")


def deviation(x: Tensor, group: int | None) -> Tensor:
    """Return the standard deviation [M, C, H, W] within each of M groups of x [N, C, H, W], at least float32.

    Row n is in group n mod M, so rows ``share::shares`` of a batch, as processes and micro-batches get them, hold whole
    groups as long as `group` divides their number. A batch that it does not divide is one group, as is any without it.
    The variance is that of the group itself, divided by its size. Where all are alike, as where there is one alone, the
    result is 1e-4 and its slope is zero.
    """
    size = group if group and len(x) % group == 0 else len(x)
    groups = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(size, len(x) // size, *x.shape[1:])
    return (groups.var(0, unbiased=False) + EPS).sqrt()


class MinibatchStd(nn.Module):
    """Images [N, C, H, W] and labels [N, classes] -> logits [N, K] of a critic that sees its group's deviation too.

    Each pixel and channel keeps its own deviation. The paper averages, but over late features, each of which stands for
    something by itself; an average over pixels is ruled by how contrasted images are and does not say where they are
    alike. A critic can average by itself, but not undo it; the price is a wider first layer.

    The slope at one image so depends on the others of its group, as in the paper, which trains by WGAN-GP. An image
    that is judged alone looks like one of a generator that makes no other: compare logits of equal batches.

    Args:
        critic: takes 2 C channels, the images' and then the deviations'.
        group: images that are compared, see `deviation`.
    """

    def __init__(self, critic: nn.Module, group: int):
        super().__init__()
        self.critic, self.group = critic, group

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        found = deviation(images, self.group)
        planes = found.repeat(len(images) // len(found), 1, 1, 1).to(images.dtype)
        logits: Tensor = self.critic(torch.cat([images, planes], dim=1), labels)
        return logits


def judge_groups(model: Model, group: int = 4) -> Model:
    """Give a model a fresh critic of its own kind that sees standard deviations, in place of its own, and return it.

    Raises:
        Unsupported: the model has no discriminator, or one that stands in for it.
        ConfigError: the group is below 2, or too large.
    """
    if group < 2:
        raise ConfigError(f"group={group}: a group holds at least 2 images.")
    check_own(model, "see how much images differ")
    return mark_fresh(attach(model, {"kind": "minibatch_std", "group": group}))


def _built(model: Model, config: MinibatchStdConfig) -> nn.Module:
    # A copy is not validated: images have at most 4 channels, with their deviations twice as many.
    settings = model.config.model_copy(update={"channels": 2 * model.config.channels})
    return MinibatchStd(type(model)(settings).get_submodule(NETWORK), config.group)


MINIBATCH_STD = CriticKind(MinibatchStdConfig, _built)
