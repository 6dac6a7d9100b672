"""Reader of pytorch-pretrained-biggan's generators: DeepMind's BigGAN-deep at 128, 256 and 512 pixels.

A folder holds pytorch_model.bin and config.json. The file brings its spectral norm live, weight_orig with the vectors u
and v: evaluation divides by u W v as they stand (their product, not the true norm: 4.79 against 5.18 for one layer of a
random network), which our `spectral="stored"` does too. Folding the quotient into the weights would sample just the
same, but a fine-tune would then train without spectral norm.

What differs from our layout:
- the condition is [z, class] there, [class, z] here: columns of every matrix that takes it turn round, and v with them;
- the first layer's output is viewed as [4, 4, channels] there, [channels, 4, 4] here: its rows, bias and u move;
- the class embedding is a linear layer without bias, [size, classes];
- the last convolution makes as many outputs as it takes and three are used: the others stay, as `spare_channels`, since
  they have their share in its norm.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Format, Part, Source, checked, state_dict
from zoo_biggan.config import GENERATOR_WIDTHS, paper_generator, sizes_up
from zoo_biggan.foreign import attention_settings, block_settings, channels_first, lone, move_spectral, turned

COLOURS = 3
KNOWN = {"embeddings.weight", "generator.gen_z.weight_orig", "generator.conv_to_rgb.weight_orig"}
Units = Annotated[int, Field(ge=1, le=64)]
Layer = Annotated[tuple[bool, Units, Units], Field(strict=False)]


class Settings(BaseModel):
    """What config.json says that the tensors do not; what it leaves out is the 128 pixels network's."""

    model_config = ConfigDict(strict=True, frozen=True)

    layers: Annotated[tuple[Layer, ...], Field(strict=False, min_length=1, max_length=100)] = paper_generator(128, True)
    attention_layer_position: int = Field(8, ge=0, le=1000)
    eps: float = Field(1e-4, gt=0, le=0.1)


def recognise(source: Source) -> bool:
    """Return whether this is one file with the names that only these have; the file may lack one of them."""
    return lone(source, KNOWN)


def read(source: Source) -> Converted:
    """Return the generator."""
    file, tree = source.only()
    part = Part(file, state_dict(tree) or {}, "generator")
    width = part.shape("generator.conv_to_rgb.weight_orig", 4)[0]
    settings = _settings(source, part, width)
    position = settings.attention_layer_position
    if position == 0:
        raise WeightsError(f"{file}: config.json puts attention before the first block: this is not supported.")
    after = (position - 1,) if position < len(settings.layers) else ()
    size, classes = part.shape("embeddings.weight", 2)
    blocks = tuple((grows, a * width, b * width) for grows, a, b in settings.layers)
    resolution = sizes_up(settings.layers)[-1]
    config = {
        "resolution": resolution,
        "channels": COLOURS,
        "num_classes": classes,
        "deep": True,
        "latent": size,
        "embedding": size,
        "norm_eps": settings.eps,
        "statistics": part.shape("generator.bn.running_means", 2)[0],
        "interpolation": "swapped",
        "spectral": "stored",
        "spare_channels": width - COLOURS,
        **block_settings(resolution, True, blocks, None),
        **attention_settings(resolution, blocks, None, after, ()),
    }
    _Generator(part, size).move(len(blocks), after)
    return Converted("biggan", config, [part.close()])


def _settings(source: Source, part: Part, width: int) -> Settings:
    """Return what config.json says; without one, the settings of the published network with these channels."""
    given = source.configs.get("config.json")
    if given is not None and "layers" in given:
        return checked(Settings, given, f"config.json beside {part.file}")
    outputs = [len(part.source[name]) for name in _numbered(part, "generator.layers.{}.conv_3.weight_orig")]
    for resolution in GENERATOR_WIDTHS:
        layers = paper_generator(resolution, True)
        if [b * width for _, _, b in layers] == outputs:
            attended = sizes_up(layers).index(min(resolution // 2, 64))
            return Settings(layers=layers, attention_layer_position=attended + 1)
    raise WeightsError(f"{part.file}: its blocks are none of the published networks': put its config.json beside it.")


def _numbered(part: Part, pattern: str) -> list[str]:
    """Return the names of this pattern in the file, in order; one number less is attention's."""
    numbers = range(len(part.source))
    return [name for name in map(pattern.format, numbers) if name in part]


class _Generator:
    """Moves the tensors; `size` is that of z and of the class embedding."""

    def __init__(self, part: Part, size: int):
        self.part, self.turn = part, turned(size)

    def move(self, blocks: int, attended: tuple[int, ...]) -> None:
        self.part.move("embeddings.weight", "embedding.weight", lambda weight: weight.T)
        self._first()
        place = 0
        for i in range(blocks):
            for k in range(4):
                self._norm(f"generator.layers.{place}.bn_{k}", f"blocks.{i}.norm{k + 1}")
                move_spectral(self.part, f"generator.layers.{place}.conv_{k}", f"blocks.{i}.conv{k + 1}", bias=True)
            place += 1
            if i in attended:
                self._attention(f"generator.layers.{place}", f"attention.{i}")
                place += 1
        self._statistics("generator.bn", "norm")
        self.part.move("generator.bn.weight", "norm.gain")
        self.part.move("generator.bn.bias", "norm.bias")
        move_spectral(self.part, "generator.conv_to_rgb", "to_image", bias=True)

    def _first(self) -> None:
        move_spectral(
            self.part, "generator.gen_z", "linear",
            weight=lambda each: channels_first(self.turn(each)), u=channels_first, v=self.turn,
        )  # fmt: skip
        self.part.move("generator.gen_z.bias", "linear.bias", channels_first)

    def _norm(self, theirs: str, ours: str) -> None:
        self._statistics(theirs, ours)
        for name, to in (("scale", "gain"), ("offset", "bias")):
            move_spectral(self.part, f"{theirs}.{name}", f"{ours}.{to}", weight=self.turn, v=self.turn)

    def _statistics(self, theirs: str, ours: str) -> None:
        self.part.move(f"{theirs}.running_means", f"{ours}.mean")
        self.part.move(f"{theirs}.running_vars", f"{ours}.var")

    def _attention(self, theirs: str, ours: str) -> None:
        for name, to in (("theta", "theta"), ("phi", "phi"), ("g", "g"), ("o_conv", "o")):
            move_spectral(self.part, f"{theirs}.snconv1x1_{name}", f"{ours}.{to}")
        self.part.move(f"{theirs}.gamma", f"{ours}.gamma", lambda gamma: gamma.reshape(()))


FORMAT = Format(
    name="huggingface_biggan",
    summary="BigGAN-deep as pytorch-pretrained-biggan publishes it: pytorch_model.bin and config.json",
    files=(r"(?:biggan-deep-\d+-)?pytorch_model\.bin", r"model\.safetensors"),
    recognise=recognise,
    read=read,
)
