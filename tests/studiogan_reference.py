"""StudioGAN's networks, written anew from their facts, to compare conversions with: names of tensors and arithmetic.

Independent of the zoo's: torch's own hook makes spectral norm, and ReLU works in place as theirs does, which reaches
the shortcuts of blocks that start with it.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

RELU = nn.ReLU(inplace=True)
INS = {32: (4, 4, 4), 64: (16, 8, 4, 2), 128: (16, 16, 8, 4, 2)}
OUTS = {32: (4, 4, 4), 64: (8, 4, 2, 1), 128: (16, 8, 4, 2, 1)}
DOWN_OUTS = {32: (2, 2, 2, 2), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}
DEEP_DOWN = {  # by variant and resolution: what the stem gives, what the stages give
    ("legacy", 32): (4, (4, 4, 4)), ("studiogan", 32): (1, (4, 4, 4)),
    ("legacy", 64): (1, (2, 4, 8, 16)), ("studiogan", 64): (1, (2, 4, 8, 16)),
}  # fmt: skip
HALVINGS = {32: 2, 64: 4, 128: 5}


def normed(layer: nn.Module, spectral: bool) -> nn.Module:
    return spectral_norm(layer, eps=1e-6) if spectral else layer


def conv(a: int, b: int, kernel: int, spectral: bool, bias: bool = True) -> nn.Module:
    return normed(nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=bias), spectral)


def linear(a: int, b: int, spectral: bool, bias: bool = True) -> nn.Module:
    return normed(nn.Linear(a, b, bias), spectral)


def batch_norm(channels: int, affine: bool = True) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-4, affine=affine)


class ConditionalNorm(nn.Module):
    """Gain and bias from a condition [N, size]."""

    def __init__(self, size: int, channels: int, spectral: bool):
        super().__init__()
        self.bn = batch_norm(channels, affine=False)
        self.gain, self.bias = (linear(size, channels, spectral, bias=False) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.bn(x) * (1 + self.gain(y))[:, :, None, None] + self.bias(y)[:, :, None, None]


class TableNorm(nn.Module):
    """Gain and bias from tables of the classes, as in the first files of the resnet backbone."""

    def __init__(self, classes: int, channels: int, spectral: bool):
        super().__init__()
        self.bn = batch_norm(channels, affine=False)
        self.embed0, self.embed1 = (normed(nn.Embedding(classes, channels), spectral) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.bn(x) * (1 + self.embed0(y))[:, :, None, None] + self.embed1(y)[:, :, None, None]


class PlainNorm(nn.BatchNorm2d):
    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-4)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return super().forward(x)


class Attention(nn.Module):
    def __init__(self, channels: int, spectral: bool):
        super().__init__()
        for name, a, b in (("theta", 1, 1 / 8), ("phi", 1, 1 / 8), ("g", 1, 1 / 2), ("attn", 1 / 2, 1)):
            self.add_module(f"conv1x1_{name}", conv(int(channels * a), int(channels * b), 1, spectral, bias=False))
        self.sigma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, keys = self.conv1x1_theta(x).flatten(2), F.max_pool2d(self.conv1x1_phi(x), 2).flatten(2)
        values = F.max_pool2d(self.conv1x1_g(x), 2).flatten(2)
        weights = torch.bmm(query.permute(0, 2, 1), keys).softmax(-1)
        mixed = torch.bmm(values, weights.permute(0, 2, 1)).view(len(x), -1, *x.shape[2:])
        return x + self.sigma * self.conv1x1_attn(mixed)


class Up(nn.Module):
    def __init__(self, a: int, b: int, norm, spectral: bool):
        super().__init__()
        self.bn1, self.bn2 = norm(a), norm(b)
        self.conv2d0, self.conv2d1, self.conv2d2 = (
            conv(*sizes, spectral) for sizes in ((a, b, 1), (a, b, 3), (b, b, 3))
        )

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        h = F.interpolate(RELU(self.bn1(x, y)), scale_factor=2)
        h = self.conv2d2(RELU(self.bn2(self.conv2d1(h), y)))
        return h + self.conv2d0(F.interpolate(x, scale_factor=2))


class DeepUp(nn.Module):
    def __init__(self, a: int, b: int, grows: bool, norm, spectral: bool, variant: str):
        super().__init__()
        self.grows, self.outputs, inner = grows, b, a // 4
        self.bn1, self.bn2, self.bn3, self.bn4 = (norm(channels) for channels in (a, inner, inner, inner))
        for number, sizes in enumerate(((a, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, b, 1)), 1):
            self.add_module(f"conv2d{number}", conv(*sizes, spectral))
        self.conv2d0 = conv(a, b, 1, spectral) if variant == "studiogan" else None

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = RELU(self.bn2(self.conv2d1(RELU(self.bn1(x, y))), y))
        if self.grows:
            h, x = F.interpolate(h, scale_factor=2), F.interpolate(x, scale_factor=2)
        h = self.conv2d4(RELU(self.bn4(self.conv2d3(RELU(self.bn3(self.conv2d2(h), y))), y)))
        return h + (x[:, : self.outputs] if self.conv2d0 is None else self.conv2d0(x))


class Generator(nn.Module):
    """`backbone`: big, legacy, studiogan (both deep), resnet; `condition`: chunks, one_hot, shared, tables, none.

    `attention`: after which blocks (deep: stages), counted from 1.
    """

    def __init__(
        self, backbone: str, size: int, width: int, z: int, classes: int = 0, shared: int = 0, condition: str = "none",
        spectral: bool = True, attention: tuple[int, ...] = (), depth: int = 2,
    ):  # fmt: skip
        super().__init__()
        ins, outs = (tuple(width * each for each in table[size]) for table in (INS, OUTS))
        deep = backbone in ("legacy", "studiogan")
        self.backbone, self.condition, self.classes, self.start = backbone, condition, classes, ins[0]
        self.chunk = z // (len(ins) + 1) if backbone == "big" else z
        taken = {"chunks": self.chunk + shared, "one_hot": classes, "shared": shared, "none": 0}.get(condition, 0)

        def norm(channels: int) -> nn.Module:
            if condition == "tables":
                return TableNorm(classes, channels, spectral)
            return ConditionalNorm(taken, channels, spectral) if taken else PlainNorm(channels)

        self.shared = nn.Embedding(classes, shared) if shared else None
        self.linear0 = linear(z + shared if deep else self.chunk, ins[0] * 16, spectral)
        self.blocks = nn.ModuleList()
        for stage, (a, b) in enumerate(zip(ins, outs, strict=True), 1):
            if deep:
                made = [
                    DeepUp(a, a if i == 0 else b, i == depth - 1, norm, spectral, backbone) for i in range(depth)
                ]
            else:
                made = [Up(a, b, norm, spectral)]
            made += [Attention(b, spectral)] if stage in attention else []
            self.blocks.extend(nn.ModuleList([each]) for each in made)
        self.bn4 = PlainNorm(outs[-1])
        self.conv2d5 = conv(outs[-1], 3, 3, spectral)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        rows = [self.shared(labels)] if self.shared is not None else []
        first, *conditions = torch.split(z, self.chunk, 1)
        if self.backbone == "big":
            conditions = [torch.cat([*rows, each], 1) for each in conditions]
        elif self.condition == "chunks":                   # deep: all of it, everywhere
            first = torch.cat([*rows, z], 1)
            conditions = [first] * len(self.blocks)
        else:
            same = {"one_hot": lambda: F.one_hot(labels, self.classes).float(), "tables": lambda: labels}
            conditions = [same.get(self.condition, lambda: rows[0] if rows else None)()] * len(self.blocks)
        x = self.linear0(first).view(len(z), self.start, 4, 4)
        queue = iter(conditions)
        for (block,) in self.blocks:
            x = block(x) if isinstance(block, Attention) else block(x, next(queue))
        return torch.tanh(self.conv2d5(RELU(self.bn4(x))))


class Down(nn.Module):
    def __init__(self, a: int, b: int, first: bool, halves: bool, spectral: bool):
        super().__init__()
        self.first, self.halves, self.spectral = first, halves, spectral
        self.learns = halves or a != b
        if self.learns:
            self.conv2d0 = conv(a, b, 1, spectral)
        self.conv2d1, self.conv2d2 = conv(a, b, 3, spectral), conv(b, b, 3, spectral)
        if not spectral:
            if self.learns:
                self.bn0 = batch_norm(a)
            self.bn1 = batch_norm(b if first else a)
            if not first:
                self.bn2 = batch_norm(b)

    def forward(self, x: Tensor) -> Tensor:
        plain, pool = nn.Identity(), nn.AvgPool2d(2) if self.halves else nn.Identity()
        norms = [plain] * 3 if self.spectral else [getattr(self, f"bn{i}", plain) for i in range(3)]
        if self.first:
            h = pool(self.conv2d2(RELU(norms[1](self.conv2d1(x)))))
            return h + self.conv2d0(norms[0](pool(x)))
        h = RELU(norms[1](x))                              # without a norm, x itself is rectified
        h = pool(self.conv2d2(RELU(norms[2](self.conv2d1(h)))))
        return h + (pool(self.conv2d0(norms[0](x))) if self.learns else x)


class DeepDown(nn.Module):
    def __init__(self, a: int, b: int, halves: bool, spectral: bool, variant: str):
        super().__init__()
        self.halves, self.variant, inner = halves, variant, b // 4
        for number, sizes in enumerate(((a, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, b, 1)), 1):
            self.add_module(f"conv2d{number}", conv(*sizes, spectral))
        if variant == "studiogan" and (halves or a != b):
            self.conv2d0 = conv(a, b, 1, spectral)
        elif a != b:
            self.conv2d0 = conv(a, b - a, 1, spectral)

    def forward(self, x: Tensor) -> Tensor:
        pool = nn.AvgPool2d(2) if self.halves else nn.Identity()
        h = self.conv2d3(RELU(self.conv2d2(RELU(self.conv2d1(RELU(x))))))
        h = self.conv2d4(RELU(pool(h)) if self.variant == "studiogan" else pool(RELU(h)))
        if not hasattr(self, "conv2d0"):
            return h + pool(x)
        if self.variant == "studiogan":
            return h + pool(self.conv2d0(x))
        return h + torch.cat([pool(x), self.conv2d0(pool(x))], 1)


class Head(nn.Module):
    """The ends of all discriminators. `kind`: W/O, PD, AC, 2C, 2C+TAC, AC+ADC or MH."""

    def ends(self, kind: str, features: int, classes: int, spectral: bool) -> None:
        self.kind = kind
        self.linear1 = linear(features, 1 + classes if kind == "MH" else 1, spectral)
        if kind == "PD":
            self.embedding = normed(nn.Embedding(classes, features), spectral)
        if kind in ("AC", "AC+ADC"):
            self.linear2 = linear(features, classes * (2 if "ADC" in kind else 1), spectral, bias=False)
        if kind in ("2C", "2C+TAC"):
            self.linear2, self.embedding = linear(features, 6, spectral), normed(nn.Embedding(classes, 6), spectral)
        if kind == "2C+TAC":
            self.linear_mi = linear(features, 6, spectral)
            self.embedding_mi = normed(nn.Embedding(classes, 6), spectral)

    def judged(self, h: Tensor, labels: Tensor | None) -> Tensor:
        h = RELU(h).sum((2, 3))
        logits = self.linear1(h)[:, 0]
        for aside in ("linear2", "linear_mi"):             # their spectral norms move in training
            if hasattr(self, aside):
                getattr(self, aside)(h)
        if self.kind == "PD":
            return logits + (self.embedding(labels) * h).sum(1)
        return logits


class Discriminator(Head):
    def __init__(
        self, backbone: str, size: int, width: int, classes: int = 0, kind: str = "PD", spectral: bool = True,
        attention: tuple[int, ...] = (), depth: int = 2,
    ):  # fmt: skip
        super().__init__()
        deep = backbone in ("legacy", "studiogan")
        stem, outs = DEEP_DOWN[backbone, size] if deep else (0, DOWN_OUTS[size])
        self.input_conv = conv(3, stem * width, 3, spectral) if deep else None
        self.blocks = nn.ModuleList()
        for stage, (a, b) in enumerate(zip((stem, *outs), outs, strict=False), 1):
            halves, a, b = stage <= HALVINGS[size], a * width or 3, b * width
            if deep:
                made = [
                    DeepDown(b if i else a, b, halves and i == 0, spectral, backbone) for i in range(depth)
                ]
            else:
                made = [Down(a, b, stage == 1, halves, spectral)]
            made += [Attention(b, spectral)] if stage in attention else []
            self.blocks.extend(nn.ModuleList([each]) for each in made)
        self.ends(kind, outs[-1] * width, classes, spectral)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        x = x if self.input_conv is None else self.input_conv(x)
        for (block,) in self.blocks:
            x = block(x)
        return self.judged(x, labels)


class PlainUp(nn.Module):
    """A block of the deep_conv backbone."""

    def __init__(self, a: int, b: int, classes: int, spectral: bool):
        super().__init__()
        self.deconv0 = normed(nn.ConvTranspose2d(a, b, 4, 2, 1), spectral)
        self.bn0 = ConditionalNorm(classes, b, spectral) if classes else PlainNorm(b)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        return RELU(self.bn0(self.deconv0(x), y))


class PlainGenerator(nn.Module):
    """The generator of the deep_conv backbone, which is always of this size."""

    def __init__(self, z: int, classes: int = 0, spectral: bool = False, widths: tuple[int, ...] = (512, 256, 128, 64)):
        super().__init__()
        self.classes, self.start = classes, widths[0]
        self.linear0 = linear(z, widths[0] * 16, spectral)
        self.blocks = nn.ModuleList(
            nn.ModuleList([PlainUp(a, b, classes, spectral)]) for a, b in pairwise(widths)
        )
        self.conv4 = conv(widths[-1], 3, 3, spectral)

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        y = F.one_hot(labels, self.classes).float() if self.classes else None
        x = self.linear0(z).view(len(z), self.start, 4, 4)
        for (block,) in self.blocks:
            x = block(x, y)
        return torch.tanh(self.conv4(x))


class PlainDown(nn.Module):
    def __init__(self, a: int, b: int, spectral: bool):
        super().__init__()
        self.conv0 = conv(a, b, 3, spectral)
        self.conv1 = normed(nn.Conv2d(b, b, 4, 2, 1), spectral)
        self.bn0, self.bn1 = (None, None) if spectral else (batch_norm(b), batch_norm(b))

    def forward(self, x: Tensor) -> Tensor:
        for layer, norm in ((self.conv0, self.bn0), (self.conv1, self.bn1)):
            x = RELU(layer(x) if norm is None else norm(layer(x)))
        return x


class PlainDiscriminator(Head):
    """The discriminator of the deep_conv backbone."""

    def __init__(
        self, classes: int = 0, kind: str = "W/O", spectral: bool = False, widths: tuple[int, ...] = (64, 128, 256, 512)
    ):
        super().__init__()
        *inner, last = (3, *widths)
        self.blocks = nn.ModuleList(
            nn.ModuleList([PlainDown(a, b, spectral)]) for a, b in pairwise(inner)
        )
        self.conv1 = conv(inner[-1], last, 3, spectral)
        self.bn1 = None if spectral else batch_norm(last)
        self.ends(kind, last, classes, spectral)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        for (block,) in self.blocks:
            x = block(x)
        x = self.conv1(x)
        return self.judged(x if self.bn1 is None else self.bn1(x), labels)


@torch.no_grad()
def lived(network: nn.Module, inputs: Tensor, labels: Tensor | None, seed: int = 0) -> nn.Module:
    """Return the network as training leaves it: nothing at 0 or 1, statistics measured, u and v a step behind."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, Attention):
            module.sigma.fill_(0.7)
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            module.bias.normal_(0, 0.3)
    network.train()
    for _ in range(3):
        network(inputs, labels)
    for name, parameter in network.named_parameters():
        if name.endswith("weight_orig"):
            parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
    return network.eval()


def write(folder: Path, *, when: str = "best", step: int = 1000, **networks: nn.Module) -> Path:
    """Write G, G_ema and D as StudioGAN does."""
    for role, network in networks.items():
        states: dict[str, object] = {"state_dict": network.state_dict()}
        if role != "G_ema":
            states["optimizer"] = torch.optim.Adam(network.parameters(), eps=1e-6).state_dict()
        if role == "D":
            states |= {
                "seed": 0, "run_name": "CIFAR10-toy-train-2022", "step": step, "epoch": 3, "topk": 64, "aa_p": None,
                "best_step": step, "best_fid": np.float64(12.5), "best_fid_ckpt": "./checkpoints",
                "lecam_emas": {"D_real": 7777, "decay": 0.9},
            }  # fmt: skip
        torch.save(states, folder / f"model={role}-{when}-weights-step={step}.pth")
    return folder
