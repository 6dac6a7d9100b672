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

import torch

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Part, Source, state_dict
from zoo_biggan.config import BOTTOM, Block
from zoo_biggan.foreign import attention_settings, block_settings, channels_first, lone, move_spectral, turned

KNOWN = {"g_z.g_linear.weight_orig", "gblock.hyperbn.gamma.weight_orig", "conv_2d.weight_orig"}


def recognise(source: Source) -> bool:
    """Return whether this is one file with the names that only these have; the file may lack one of them."""
    return lone(source, KNOWN)


def read(source: Source) -> Converted:
    """Return the generator."""
    file, tree = source.only()
    part = Part(file, state_dict(tree) or {}, "generator")
    names = ["gblock", *(name for i in range(1, len(part.source)) if _has(part, name := f"gblock_{i}"))]
    blocks: list[Block] = []
    for name in names:
        outputs, inputs, *_ = part.shape(f"{name}.conv0.weight_orig", 4)
        blocks.append((True, inputs, outputs))
    attended = part.shape("attention.theta.weight_orig", 4)[1]
    after = tuple(i for i, (_, _, outputs) in enumerate(blocks) if outputs == attended)
    if len(after) != 1:
        raise WeightsError(f"{file}: tensor 'attention.theta.weight_orig': no one block gives {attended} channels.")
    classes, embedding = part.shape("linear.weight", 2)
    resolution = BOTTOM * 2 ** len(blocks)
    config = {
        "resolution": resolution,
        "channels": part.shape("conv_2d.weight_orig", 4)[0],
        "num_classes": classes,
        "latent": part.shape("g_z.g_linear.weight_orig", 2)[1] * (len(blocks) + 1),
        "embedding": embedding,
        "norm_eps": 1e-4,
        "statistics": part.shape("scaledcrossreplicabn.standing_means", 2)[0] + 1,
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
    turn = turned(embedding)
    part.move("linear.weight", "embedding.weight")
    move_spectral(part, "g_z.g_linear", "linear", weight=channels_first, u=channels_first)
    part.move("g_z.g_linear.bias", "linear.bias", channels_first)
    for i, name in enumerate(names):
        for theirs, ours in (("conv0", "conv1"), ("conv1", "conv2"), ("conv_sc", "shortcut")):
            _convolution(part, f"{name}.{theirs}", f"blocks.{i}.{ours}")
        for theirs, ours in (("hyperbn", "norm1"), ("hyperbn_1", "norm2")):
            _statistics(part, f"{name}.{theirs}.crossreplicabn", f"blocks.{i}.{ours}")
            for layer, to in (("gamma", "gain"), ("beta", "bias")):
                move_spectral(part, f"{name}.{theirs}.{layer}", f"blocks.{i}.{ours}.{to}", weight=turn, v=turn)
    for layer, to in (("theta", "theta"), ("phi", "phi"), ("g", "g"), ("o_conv", "o")):
        move_spectral(part, f"attention.{layer}", f"attention.{attended}.{to}")
    part.move("attention.gamma", f"attention.{attended}.gamma", lambda gamma: gamma.reshape(()))
    _statistics(part, "scaledcrossreplicabn", "norm")
    part.move("scaledcrossreplicabn.weight", "norm.gain")
    part.move("scaledcrossreplicabn.bias", "norm.bias")
    _convolution(part, "conv_2d", "to_image")
    part.leave(r".+\.running_(mean|var)", r".+\.num_batches_tracked")


def _convolution(part: Part, theirs: str, ours: str) -> None:
    kernel = part.shape(f"{theirs}.weight_orig", 4)[2:]
    move_spectral(part, theirs, ours, bias=True, v=lambda v: v.reshape(*kernel, -1).permute(2, 0, 1).flatten())


def _statistics(part: Part, theirs: str, ours: str) -> None:
    for name, to in (("standing_means", "mean"), ("standing_vars", "var")):
        part.move(f"{theirs}.{name}", f"{ours}.{to}", lambda rows: torch.cat([rows[:1], rows]))


FORMAT = Format(
    name="ivclab_biggan",
    summary="ivclab/BigGAN-Generator-Pretrained-Pytorch: biggan128-release.pt and its siblings of 256 and 512 pixels",
    files=(r"biggan\d+-release\.pt",),
    recognise=recognise,
    read=read,
)
