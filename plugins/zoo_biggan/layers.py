"""The parts of a BigGAN: spectral norm, class-conditional batch norm and self-attention."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Spectral = Literal["refined", "stored"]      # what evaluation divides a weight by; see `spectral_norm`


def spectral_norm(weight: Tensor, u: Tensor, update: bool, v: Tensor | None = None) -> Tensor:
    """Return the weight over its largest singular value (Miyato et al., 2018, arXiv:1802.05957, section 2.1).

    One power iteration from `u` refines the estimate, in evaluation too; `update` keeps it for the next call. With `v`
    ("stored"), evaluation takes both vectors as they stand, which is what torch.nn.utils.spectral_norm does. The
    estimate carries no gradient and is made of fresh tensors, so that two forward passes may precede one backward pass.

    Args:
        weight: [out, ...], read as a matrix [out, rest].
        u: [out], the left singular vector so far.
        update: overwrite `u`, and `v`, by the refined vectors.
        v: [rest], the right singular vector so far, where it is kept.
    """
    with torch.autocast(weight.device.type, enabled=False):
        matrix = weight.flatten(1).float()
        with torch.no_grad():
            if v is None or update:
                left, right = _iterate(matrix, u, v, update)
            else:
                left, right = u.float().clone(), v.float().clone()
        sigma = left @ (matrix @ right)
        return weight / sigma.to(weight.dtype)


def _iterate(matrix: Tensor, u: Tensor, v: Tensor | None, update: bool) -> tuple[Tensor, Tensor]:
    """Return both singular vectors after one more power iteration; `update` writes them back."""
    right = F.normalize(u.float() @ matrix, dim=0)
    left = F.normalize(matrix @ right, dim=0)
    if update:
        u.copy_(left)
        if v is not None:
            v.copy_(right)
    return left, right


def _start(size: int) -> Tensor:
    return F.normalize(torch.randn(size), dim=0)


def _keep_vectors(layer: nn.Linear | nn.Conv2d | Embedding, stored: bool) -> None:
    layer.register_buffer("u", _start(len(layer.weight)))
    if stored:
        layer.register_buffer("v", _start(layer.weight[0].numel()))


def _normal(layer: nn.Linear | nn.Conv2d | Embedding) -> Tensor:
    """Return a layer's weight over its spectral norm."""
    v = layer.get_buffer("v") if hasattr(layer, "v") else None
    return spectral_norm(layer.weight, layer.get_buffer("u"), layer.training, v)


class SNLinear(nn.Linear):
    """A linear layer with spectral norm."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, *, stored: bool = False):
        super().__init__(inputs, outputs, bias)
        _keep_vectors(self, stored)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _normal(self), self.bias)


class SNConv2d(nn.Conv2d):
    """A convolution with spectral norm that keeps the image's size.

    Of its outputs the first `used` are computed (None: all); the others have their share in the norm alone.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        bias: bool = True,
        *,
        stored: bool = False,
        used: int | None = None,
    ):
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.used = used
        _keep_vectors(self, stored)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.bias is None else self.bias[: self.used]
        return F.conv2d(x, _normal(self)[: self.used], bias, padding=self.padding)


class Embedding(nn.Module):
    """Rows of class weights [N, classes] -> [N, size]: one-hot picks a class's vector, soft rows mix them."""

    def __init__(self, classes: int, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, size))

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ self.weight


class SNEmbedding(Embedding):
    """A class embedding with spectral norm."""

    def __init__(self, classes: int, size: int, *, stored: bool = False):
        super().__init__(classes, size)
        _keep_vectors(self, stored)

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ _normal(self)


def linear(inputs: int, outputs: int, *, spectral: Spectral | None, bias: bool = True) -> nn.Linear:
    """Return a linear layer, with spectral norm or without."""
    if spectral is None:
        return nn.Linear(inputs, outputs, bias)
    return SNLinear(inputs, outputs, bias, stored=spectral == "stored")


def conv(inputs: int, outputs: int, kernel: int, *, spectral: Spectral | None, bias: bool = True) -> nn.Conv2d:
    """Return a size-keeping convolution, with spectral norm or without."""
    if spectral is None:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
    return SNConv2d(inputs, outputs, kernel, bias, stored=spectral == "stored")


def embedding(classes: int, size: int, *, spectral: Spectral | None) -> Embedding:
    """Return a class embedding, with spectral norm or without."""
    return Embedding(classes, size) if spectral is None else SNEmbedding(classes, size, stored=spectral == "stored")


@torch.no_grad()
def settle(layer: nn.Module, iterations: int) -> None:
    """Fit a layer's stored vectors, if it has them, to its weight, which changed since they were stored."""
    if hasattr(layer, "u") and hasattr(layer, "v"):
        matrix = layer.get_parameter("weight").flatten(1)
        for _ in range(iterations):
            _iterate(matrix, layer.get_buffer("u"), layer.get_buffer("v"), update=True)


def orthogonal_(network: nn.Module) -> None:
    """Make every weight orthogonal (Saxe et al., 2014, arXiv:1312.6120), every bias zero; fit stored vectors."""
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, Embedding)):
            nn.init.orthogonal_(module.weight)
            settle(module, 1)
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
            nn.init.zeros_(module.bias)


class BatchNorm(nn.Module):
    """Batch norm that keeps one set of statistics for each of several truncations; it has no gain and bias of its own.

    Row i of `mean` and `var` [rows, channels] belongs to psi = i / (rows - 1); a lone row serves every psi. Training
    writes its running average to all rows; `BigGAN.standing_statistics` measures them one by one.
    """

    momentum = 0.1                     # weight of the newest batch in the running average

    def __init__(self, channels: int, eps: float, rows: int, swapped: bool):
        super().__init__()
        self.eps, self.swapped = eps, swapped
        self.register_buffer("mean", torch.zeros(rows, channels))
        self.register_buffer("var", torch.ones(rows, channels))

    def normalise(self, x: Tensor, psi: float) -> Tensor:
        """Return x [N, C, H, W] with mean 0 and variance 1 in each channel."""
        means, variances = self.get_buffer("mean"), self.get_buffer("var")
        if not self.training:
            return F.batch_norm(x, self._at(means, psi), self._at(variances, psi), eps=self.eps)
        mean, var = self.latest()              # fresh tensors: a second forward pass may come before the backward pass
        normal = F.batch_norm(x, mean, var, training=True, momentum=self.momentum, eps=self.eps)
        means.copy_(mean.expand_as(means))
        variances.copy_(var.expand_as(variances))
        return normal

    def latest(self) -> tuple[Tensor, Tensor]:
        """Return a copy of the mean and variance [channels] that training wrote last."""
        return self.get_buffer("mean")[-1].clone(), self.get_buffer("var")[-1].clone()

    def keep(self, rows: list[tuple[Tensor, Tensor]]) -> None:
        """Set the statistics of each psi: a mean and a variance [channels] for each row."""
        for buffer, values in zip((self.get_buffer("mean"), self.get_buffer("var")), zip(*rows), strict=True):
            buffer.copy_(torch.stack(values))

    def _at(self, rows: Tensor, psi: float) -> Tensor:
        last = len(rows) - 1
        # Divided by the step, not multiplied by its inverse: published weights hold the rounding of just that.
        place = min(max(psi, 0.0), 1.0) / (1 / last) if last else 0.0
        low = int(place)
        share = place - low
        if low >= last or share == 0:
            return rows[min(low, last)]
        return torch.lerp(rows[low], rows[low + 1], 1 - share if self.swapped else share)


class PlainNorm(BatchNorm):
    """Batch norm with a learned gain and bias."""

    def __init__(self, channels: int, eps: float, rows: int, swapped: bool):
        super().__init__(channels, eps, rows, swapped)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, condition: Tensor | None, psi: float) -> Tensor:
        return self.normalise(x, psi) * self.gain[:, None, None] + self.bias[:, None, None]


class ConditionalNorm(BatchNorm):
    """Batch norm whose gain (around 1) and bias are linear in a condition [N, size] (Brock et al., 2019, Figure 15)."""

    def __init__(self, channels: int, eps: float, rows: int, swapped: bool, size: int, spectral: Spectral | None):
        super().__init__(channels, eps, rows, swapped)
        self.gain = linear(size, channels, spectral=spectral, bias=False)
        self.bias = linear(size, channels, spectral=spectral, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None, psi: float) -> Tensor:
        gain: Tensor = 1 + self.gain(condition)
        bias: Tensor = self.bias(condition)
        return self.normalise(x, psi) * gain[:, :, None, None] + bias[:, :, None, None]


class SelfAttention(nn.Module):
    """x [N, C, H, W] plus gamma times attention, whose keys and values are 2x2 pooled (Zhang et al., 2019, SAGAN)."""

    def __init__(self, channels: int, spectral: Spectral | None):
        super().__init__()
        inner, values = max(1, channels // 8), max(1, channels // 2)
        self.theta = conv(channels, inner, 1, spectral=spectral, bias=False)
        self.phi = conv(channels, inner, 1, spectral=spectral, bias=False)
        self.g = conv(channels, values, 1, spectral=spectral, bias=False)
        self.o = conv(values, channels, 1, spectral=spectral, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.theta(x).flatten(2)                                # [N, C/8, HW]
        keys = F.max_pool2d(self.phi(x), 2).flatten(2)                  # [N, C/8, HW/4]
        values = F.max_pool2d(self.g(x), 2).flatten(2)                  # [N, C/2, HW/4]
        weights = (query.transpose(1, 2) @ keys).softmax(-1)            # [N, HW, HW/4]
        mixed = (values @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        attended: Tensor = self.o(mixed)
        return x + self.gamma * attended
