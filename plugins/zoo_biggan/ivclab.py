"""Reader of ivclab/BigGAN-Generator-Pretrained-Pytorch: DeepMind's BigGAN at 128, 256 and 512 pixels, the generators.

biggan128-release.pt and its two siblings are bare state dicts whose spectral norm is live, as in
`zoo_biggan.huggingface`; what differs from our layout is much the same:
- the condition is [z, class] there, [class, z] here: the columns of the gains and biases turn round, and v with them;
- the first layer's output is viewed as [4, 4, channels] there, [channels, 4, 4] here: its rows, bias and u move;
- the norm of a convolution is that of the matrix [out, height * width * in] there, [out, in * height * width] here: v
  is permuted;
- statistics are kept for truncations 0.02, 0.04 ... 1: the first of them serves 0 as well. In between, upstream's code
  extrapolates from the nearest two by a slip in its index; here they are interpolated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Part, Source, state_dict
from zoo_biggan.config import BOTTOM, Block
from zoo_biggan.foreign import attention_settings, block_settings, channels_first, shape

KNOWN = {"g_z.g_linear.weight_orig", "gblock.hyperbn.gamma.weight_orig", "conv_2d.weight_orig"}
Change = Callable[[Tensor], Tensor]


def recognise(source: Source) -> bool:
    """Return whether this is one file with the names that only these have; the file may lack one of them."""
    tensors = state_dict(next(iter(source.files.values()))) if len(source.files) == 1 else None
    return tensors is not None and len(KNOWN & set(tensors)) >= len(KNOWN) - 1


def read(source: Source) -> Converted:
    """Return the generator."""
    file, tree = source.only()
    part = Part(file, state_dict(tree) or {}, "generator")
    names = ["gblock", *(name for i in range(1, len(part.source)) if _has(part, name := f"gblock_{i}"))]
    blocks: list[Block] = []
    for name in names:
        outputs, inputs, *_ = shape(part, f"{name}.conv0.weight_orig", 4)
        blocks.append((True, inputs, outputs))
    attended = shape(part, "attention.theta.weight_orig", 4)[1]
    after = tuple(i for i, (_, _, outputs) in enumerate(blocks) if outputs == attended)
    if len(after) != 1:
        raise WeightsError(f"{file}: tensor 'attention.theta.weight_orig': no one block gives {attended} channels.")
    classes, embedding = shape(part, "linear.weight", 2)
    resolution = BOTTOM * 2 ** len(blocks)
    config = {
        "resolution": resolution,
        "channels": shape(part, "conv_2d.weight_orig", 4)[0],
        "num_classes": classes,
        "latent": shape(part, "g_z.g_linear.weight_orig", 2)[1] * (len(blocks) + 1),
        "embedding": embedding,
        "norm_eps": 1e-4,
        "statistics": shape(part, "scaledcrossreplicabn.standing_means", 2)[0] + 1,
        "spectral": "stored",
        **block_settings(resolution, False, blocks, None),
        **attention_settings(resolution, blocks, None, after, ()),
    }
    _move(part, names, after[0], embedding)
    return Converted("biggan", config, [part.close()])


def _has(part: Part, layer: str) -> bool:
    return any(name.startswith(f"{layer}.") for name in part)


def _move(part: Part, names: list[str], attended: int, embedding: int) -> None:
    """Move every tensor."""
    turn = _turn(embedding)
    part.move("linear.weight", "embedding.weight")
    for name, to in (("weight_orig", "weight"), ("bias", "bias"), ("weight_u", "u")):
        part.move(f"g_z.g_linear.{name}", f"linear.{to}", channels_first)
    part.move("g_z.g_linear.weight_v", "linear.v")
    for i, name in enumerate(names):
        for theirs, ours in (("conv0", "conv1"), ("conv1", "conv2"), ("conv_sc", "shortcut")):
            _convolution(part, f"{name}.{theirs}", f"blocks.{i}.{ours}")
        for theirs, ours in (("hyperbn", "norm1"), ("hyperbn_1", "norm2")):
            _statistics(part, f"{name}.{theirs}.crossreplicabn", f"blocks.{i}.{ours}")
            for layer, to in (("gamma", "gain"), ("beta", "bias")):
                _spectral(part, f"{name}.{theirs}.{layer}", f"blocks.{i}.{ours}.{to}", turn, turn)
    for layer, to in (("theta", "theta"), ("phi", "phi"), ("g", "g"), ("o_conv", "o")):
        _spectral(part, f"attention.{layer}", f"attention.{attended}.{to}")
    part.move("attention.gamma", f"attention.{attended}.gamma", lambda gamma: gamma.reshape(()))
    _statistics(part, "scaledcrossreplicabn", "norm")
    part.move("scaledcrossreplicabn.weight", "norm.gain")
    part.move("scaledcrossreplicabn.bias", "norm.bias")
    _convolution(part, "conv_2d", "to_image")
    part.leave(r".+\.running_(mean|var)", r".+\.num_batches_tracked")


def _spectral(part: Part, theirs: str, ours: str, weight: Change | None = None, v: Change | None = None) -> None:
    part.move(f"{theirs}.weight_orig", f"{ours}.weight", weight)
    part.move(f"{theirs}.weight_u", f"{ours}.u")
    part.move(f"{theirs}.weight_v", f"{ours}.v", v)


def _convolution(part: Part, theirs: str, ours: str) -> None:
    kernel = shape(part, f"{theirs}.weight_orig", 4)[2:]
    _spectral(part, theirs, ours, v=lambda v: v.reshape(*kernel, -1).permute(2, 0, 1).flatten())
    part.move(f"{theirs}.bias", f"{ours}.bias")


def _statistics(part: Part, theirs: str, ours: str) -> None:
    for name, to in (("standing_means", "mean"), ("standing_vars", "var")):
        part.move(f"{theirs}.{name}", f"{ours}.{to}", lambda rows: torch.cat([rows[:1], rows]))


def _turn(embedding: int) -> Change:
    """[..., z and class] -> [..., class and z]."""
    return lambda tensor: torch.roll(tensor, embedding, -1)


FORMAT = Format(
    name="ivclab_biggan",
    summary="ivclab/BigGAN-Generator-Pretrained-Pytorch: biggan128-release.pt and its siblings of 256 and 512 pixels",
    files=(r"biggan\d+-release\.pt",),
    recognise=recognise,
    read=read,
)
