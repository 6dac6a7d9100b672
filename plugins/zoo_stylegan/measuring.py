"""What the tensors of a foreign StyleGAN2 say about its configuration."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.formats.contract import Converted, Part
from zoo_stylegan.networks import Mapping as MappingNetwork

SAMPLE = 4096      # styles whose mean stands for a missing average
SHARED = ("resolution", "channels", "num_classes", "resample_filter")      # settings that both networks state
LIVE, AVERAGED = ("G", "g"), ("G_ema", "g_ema", "Gs")      # what upstream calls generators
STRANGERS = "these are not networks of one model"
Made = tuple[dict[str, object], Part]      # a network's settings and tensors


def channel_settings(
    widths: Sequence[int], prefix: str = "", hint: tuple[object, object] | None = None
) -> dict[str, object]:
    """Return the settings that give these channels at 4x4, 8x8, ...: channel_base and channel_max where they can.

    Args:
        widths: channels, from 4x4 up.
        prefix: "discriminator_" for its settings.
        hint: the channel_base and channel_max that the file names: kept if they give just these channels.
    """
    sizes = [4 << i for i in range(len(widths))]
    most = max(widths)
    below = [size * width for size, width in zip(sizes, widths, strict=True) if width < most]
    guess = (max(below, default=most * sizes[-1]), most)
    for base, limit in (hint or guess, guess):
        if isinstance(base, int) and isinstance(limit, int) and [min(base // at, limit) for at in sizes] == [*widths]:
            return {f"{prefix}channel_base": base, f"{prefix}channel_max": limit}
    return {f"{prefix}widths": tuple(widths)}


def taps(part: Part, names: Sequence[str], gain: float = 1.0) -> tuple[float, ...]:
    """Return the taps of the low-pass filter of sum `gain` that all these tensors hold, [L, L], or [L] as one row.

    Raises:
        WeightsError: one is missing, differs from the others, or is not the same filter in both directions.
    """
    row = torch.ones(1)
    for name in names:
        tensor = part[name]
        if name == names[0]:
            row = tensor.double().sum(0) if tensor.ndim == 2 else tensor.double().flatten()
            row = row / row.sum()
        expected = gain * (torch.outer(row, row) if tensor.ndim == 2 else row)
        if tensor.shape != expected.shape or not torch.allclose(tensor.double(), expected, rtol=1e-4, atol=1e-6):
            raise WeightsError(f"{part.place}: tensor {name!r} is not the one low-pass filter of all layers.")
    return tuple(round(float(tap / row[0]), 6) for tap in row)


def generators_among(found: Mapping[str, object]) -> dict[str, str]:
    """Return which of these networks, by upstream's names, are generators, and where each goes."""
    names = [name for name in (*LIVE, *AVERAGED) if name in found]
    return {name: "averages.generator" if name in AVERAGED and len(names) > 1 else "generator" for name in names}


def joined(file: str, drawing: Mapping[str, Made], judging: Made | None) -> Converted:
    """Return the StyleGAN2 of these generators, by upstream's names, and this discriminator.

    Raises:
        WeightsError: the networks are not of one model.
    """
    settings = next(iter(drawing.values()))[0] if drawing else {}
    for other, _ in drawing.values():
        for name in other:
            if other[name] != settings.get(name):
                raise WeightsError(f"{file}: {name} of {' and '.join(drawing)} differ: {STRANGERS}.")
    parts = [part for _, part in (*drawing.values(), *([judging] if judging else []))]
    config = agreed(file, settings, judging[0] if judging else {})
    return Converted("stylegan", config, parts, {"path_length": torch.zeros(())})


def agreed(file: str, generator: Mapping[str, object], discriminator: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of a whole model; what the discriminator has like the generator is left to its default.

    Raises:
        WeightsError: the networks are not of one model.
    """
    check_shared(file, generator, discriminator)
    own = dict(discriminator)
    if generator:
        channels = ("channel_base", "channel_max")
        if all(generator.get(name) == own.get(f"discriminator_{name}") for name in channels):
            own = {name: value for name, value in own.items() if name not in {f"discriminator_{it}" for it in channels}}
        for name in ("mapping_layers", "mapping_rate"):
            if generator[name] == own.get(f"discriminator_{name}"):
                del own[f"discriminator_{name}"]
        if (own.get("discriminator_clamp") or None) == generator.get("conv_clamp"):
            own.pop("discriminator_clamp", None)
    return {**own, **generator}


def check_shared(file: str, generator: Mapping[str, object], discriminator: Mapping[str, object]) -> None:
    """Raise WeightsError if the two say different things of what both state."""
    for name in SHARED:
        if name in generator and name in discriminator and generator[name] != discriminator[name]:
            both = f"{generator[name]!r:.60} for the generator, {discriminator[name]!r:.60} for the discriminator"
            raise WeightsError(f"{file}: {name} is {both}: {STRANGERS}.")


def mean_style(part: Part, latent: int, w: int, layers: int, rate: float) -> Tensor:
    """Return the mean style [w] of 4096 latents, as many as rosinality's scripts draw, of an unconditional generator.

    For files that have no average: upstream draws those latents anew each time that it truncates. Here they are always
    the same, numpy's RandomState(5).randn(4096, latent), a stream that no version of anything will change.

    Args:
        part: a generator whose mapping network was moved.
        latent, w, layers, rate: the sizes and the learning rate multiplier of that network.
    """
    prefix = f"{part.into}.mapping."
    state = {name.removeprefix(prefix): value for name, value in part.tensors.items() if name.startswith(prefix)}
    with torch.device("meta"):
        mapping = MappingNetwork(latent, 0, w, layers, rate)
    try:
        mapping.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"{part.place}: the layers of the mapping network do not fit together.") from error
    with torch.no_grad():
        mean: Tensor = mapping(frozen_normal(5, SAMPLE * latent).reshape(SAMPLE, -1), None).mean(0)
    return mean


def frozen_normal(seed: int, count: int) -> Tensor:
    """Return the first `count` numbers of numpy's RandomState(seed).randn(), in float32.

    Marsaglia's polar method on uniform numbers of the Mersenne Twister, which is Python's generator too.
    """
    word = [seed]
    for i in range(1, 624):
        word.append((1812433253 * (word[-1] ^ (word[-1] >> 30)) + i) & 0xFFFFFFFF)
    stream = random.Random()
    stream.setstate((3, (*word, 624), None))
    found = torch.empty(0, dtype=torch.float64)
    while len(found) < count:      # of the pairs in a square, those within the circle: pi / 4 of them
        more = 64 + 2 * int(0.66 * (count - len(found)))
        drawn = torch.tensor([stream.random() for _ in range(more)], dtype=torch.float64)
        pairs = 2 * drawn.reshape(-1, 2) - 1
        radius = pairs.square().sum(1)
        kept = (radius < 1) & (radius > 0)
        pairs, radius = pairs[kept], radius[kept]
        normal = pairs.flip(1) * (-2 * radius.log() / radius).sqrt()[:, None]
        found = torch.cat([found, normal.flatten()])
    return found[:count].float()
