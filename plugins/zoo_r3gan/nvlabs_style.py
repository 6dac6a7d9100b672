"""Network pickles of the authors' R3GAN repository, which writes them as NVlabs' stylegan3 does.

``{"G", "D", "G_ema", ...}``; each network wraps its layers as ``Model``. All sizes are read from the tensors. There,
the stages of high resolution run in bfloat16; here everything is float32, so images agree to bfloat16's precision.
"""

from __future__ import annotations

import re

from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Instance, Part, Source, Tree, network

NETWORKS = ("G", "G_ema", "D")
STAGE = re.compile(r"Model\.MainLayers\.(\d+)\.Layers\.(\d+)\.LinearLayer1\.Layer\.weight")


class Layout:
    """How a network's stages lie in its file, the one at 4x4 first: their number in the file and their blocks'."""

    def __init__(self, part: Part, *, reverse: bool):
        blocks: dict[int, list[int]] = {}
        for found in filter(None, map(STAGE.fullmatch, part)):
            blocks.setdefault(int(found[1]), []).append(int(found[2]))
        if not 2 <= len(blocks) <= 10:
            raise WeightsError(f"{part.place}: {len(blocks)} stages of residual blocks: an R3GAN has 2 to 10.")
        self.part, self.stages = part, sorted(blocks.items(), reverse=reverse)
        self.resolution = 2 << len(blocks)

    def name(self, stage: int, block: int, layer: str) -> str:
        number, blocks = self.stages[stage]
        return f"Model.MainLayers.{number}.Layers.{sorted(blocks)[block]}.{layer}"

    def settings(self) -> dict[str, object]:
        """Return the sizes that all stages share, and those that follow from the resolution.

        Raises:
            WeightsError: the stages are not all built alike.
        """
        layers = ("LinearLayer1.Layer.weight", "LinearLayer2.Layer.weight")
        shapes = [
            [self.part.shape(self.name(stage, 0, layer), 4) for layer in layers] for stage in range(len(self.stages))
        ]
        widths = [widen[1] for widen, _ in shapes]
        built = {
            (len(blocks), widen[0] // widen[1], mix[1])
            for (_, blocks), (widen, mix) in zip(self.stages, shapes, strict=True)
        }
        base, most = widths[-1] * self.resolution, widths[0]
        if len(built) > 1 or widths != [min(base // (4 << stage), most) for stage in range(len(widths))]:
            raise WeightsError(
                f"{self.part.place}: channels {widths} and (blocks, expansion, group width) {sorted(built)} from 4x4 "
                "up: only networks whose stages are built alike are supported."
            )
        ((blocks, expansion, group),) = built
        return {
            "resolution": self.resolution, "channel_base": base, "channel_max": most, "blocks": blocks,
            "expansion": expansion, "group_width": group,
        }  # fmt: skip

    def move_blocks(self) -> None:
        for stage, (number, blocks) in enumerate(self.stages):
            for block in range(len(blocks)):
                ours = f"stages.{4 << stage}.blocks.{block}"
                for theirs, to in (("1", "widen"), ("2", "mix"), ("3", "narrow")):
                    self.part.move(self.name(stage, block, f"LinearLayer{theirs}.Layer.weight"), f"{ours}.{to}.weight")
                for theirs, to in (("1", "widen"), ("2", "mix")):
                    self.part.move(self.name(stage, block, f"NonLinearity{theirs}.Bias"), f"{ours}.{to}.bias")
            between = [name for name in self.part if re.fullmatch(
                rf"Model\.MainLayers\.{number}\.Layers\.\d+\.LinearLayer\.Layer\.weight", name
            )]  # fmt: skip
            for name in between:
                self.part.move(name, f"stages.{4 << stage}.fit.weight")


def generator(file: str, tensors: dict[str, Tensor], into: str, within: str) -> tuple[dict[str, object], Part]:
    """Return the settings and the tensors of a pickled generator."""
    part = Part(file, tensors, into, within)
    layout = Layout(part, reverse=False)
    basis = f"Model.MainLayers.{layout.stages[0][0]}.Layers.0"
    layout.move_blocks()
    latent = part.size(f"{basis}.LinearLayer.weight", 1)
    settings = {**layout.settings(), "channels": part.size("Model.AggregationLayer.Layer.weight", 0)}
    if (label := "Model.EmbeddingLayer.weight") in part:
        settings |= {"num_classes": part.size(label, 1), "embedding": part.size(label, 0)}
        latent -= part.size(label, 0)
        part.move(label, "embedding.weight")
    part.move(f"{basis}.LinearLayer.weight", "head.weight")
    part.move(f"{basis}.Basis", "basis")
    part.move("Model.AggregationLayer.Layer.weight", "to_image.weight")
    part.leave(r".*\.Resampler\.Kernel")      # the filter [1, 3, 3, 1], a constant
    return {**settings, "latent": latent}, part.close()


def discriminator(file: str, tensors: dict[str, Tensor], within: str) -> tuple[dict[str, object], Part]:
    """Return the settings and the tensors of a pickled discriminator."""
    part = Part(file, tensors, "discriminator", within)
    layout = Layout(part, reverse=True)
    number, blocks = layout.stages[0]
    basis = f"Model.MainLayers.{number}.Layers.{len(blocks)}"
    layout.move_blocks()
    settings = {**layout.settings(), "channels": part.size("Model.ExtractionLayer.Layer.weight", 1)}
    if (label := "Model.EmbeddingLayer.weight") in part:
        settings["num_classes"] = part.size(label, 1)
        part.move(label, "embedding.weight")
    part.move("Model.ExtractionLayer.Layer.weight", "from_image.weight")
    part.move(f"{basis}.Basis.weight", "basis.weight")
    part.move(f"{basis}.LinearLayer.weight", "head.weight")
    part.leave(r".*\.Resampler\.Kernel")
    return settings, part.close()


# The format.


def networks(tree: Tree) -> dict[str, dict[str, Tensor]]:
    """Return the state dicts of a pickle's networks by their names, {} if it holds none of R3GAN's."""
    if not isinstance(tree, dict):
        return {}
    found = {name: network(tree[name]) for name in NETWORKS if isinstance(tree.get(name), Instance)}
    return found if found and all(any(map(STAGE.fullmatch, tensors)) for tensors in found.values()) else {}


def recognise(source: Source) -> bool:
    return len(source.files) == 1 and bool(networks(source.only()[1]))


def read(source: Source) -> Converted:
    file, tree = source.only()
    found = networks(tree)
    if not found:
        raise WeightsError(f"{file} holds no networks of R3GAN: give a network pickle of its authors' repository.")
    averaged = "averages.generator" if "G" in found else "generator"
    into = {"G": "generator", "G_ema": averaged}
    made = {
        name: discriminator(file, tensors, name) if name == "D" else generator(file, tensors, into[name], name)
        for name, tensors in found.items()
    }
    settings: dict[str, object] = {}
    for name, (given, _) in made.items():
        for setting, value in given.items():
            if settings.setdefault(setting, value) != value:
                raise WeightsError(f"{file}: {setting} of {name} is {value}, elsewhere {settings[setting]}.")
    return Converted("r3gan", settings, [part for _, part in made.values()])


FORMAT = Format("r3gan", "R3GAN network pickles of the authors' repository", (r".*\.pkl",), recognise, read)
