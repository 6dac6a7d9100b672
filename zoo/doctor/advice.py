"""How to train on a set: a value and its reason for each setting that the set has something to say about."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np

from zoo.doctor.findings import MANY, NEARLY_ALL, STRETCH
from zoo.doctor.look import Survey
from zoo.doctor.words import counted
from zoo.plugin import Architecture, Weights
from zoo.transfer import AUGMENT, FEW, OFTEN

LEAST, MOST = 32, 256       # pixels; larger ones take days on one GPU
WITHOUT_GPU = 64            # pixels that a processor trains in hours
TRANSFER = (8, 1000)        # kimg: the shortest and the longest fine-tune suggested
SCRATCH = (500, 10_000)     # kimg from random weights
EPOCHS = 250                # times that each image is shown from random weights
SHOWN = 100                 # and from trained ones
BATCH = 32                  # images a step; fewer where there are hardly more images


@dataclass(frozen=True)
class Advice:
    """A suggestion: what to set, to what, and why."""

    setting: str
    value: str
    reason: str


@dataclass(frozen=True)
class Parent:
    """What a training starts from."""

    name: str                   # as it is given to zoo finetune or zoo train
    weights: Weights | None     # None: random ones

    @classmethod
    def named(cls, name: str) -> Parent:
        """Return what stands under ARCH or ARCH.TAG. Raises UnknownName."""
        from zoo.registry import architecture, resolve

        found: Architecture = architecture(name.partition(".")[0])
        if "." not in name and found.default is None:
            return cls(name, None)
        return cls(name, resolve(name)[2])


def resolution(seen: Survey, parent: Parent, gpu: bool) -> Advice:
    """Suggest the largest power of two that nearly all images have the pixels for, within reason."""
    side = float(np.quantile([each.side for each in seen.looks], MANY)) * STRETCH
    possible = max(LEAST, 1 << max(0, int(side).bit_length() - 1))
    limit, why = (MOST, "beyond, one GPU takes days") if gpu else (WITHOUT_GPU, "there is no GPU here")
    native = parent.weights.resolution if parent.weights else None
    if native and native <= possible and native >= min(possible, limit):
        return Advice("resolution", str(native), f"that of the weights {parent.name}, and the images have the pixels")
    if possible > limit:
        return Advice("resolution", str(limit), f"the images would do for {possible}, but {why}")
    return Advice("resolution", str(possible), f"nearly all images have that many pixels ({_spread(seen)})")


def _spread(seen: Survey) -> str:
    sides = [each.side for each in seen.looks]
    return f"shorter sides: {min(sides):,} to {max(sides):,}, median {int(np.median(sides)):,}"


def settings(seen: Survey, parent: Parent, size: Advice) -> list[Advice]:
    """Return all suggestions, the resolution first."""
    n = len(seen)
    found = [size, _channels(seen)]
    found.append(_length(n, parent))
    batch = min(BATCH, 1 << max(1, (n // 4).bit_length() - 1))
    if batch < BATCH:
        found.append(Advice("batch", str(batch), f"a larger one would show {counted(n, 'image')} in a few steps"))
    else:
        found.append(Advice("batch", "the recipe's", f"{counted(n, 'image')} suffice; halve it where memory does not"))
    if n < FEW:
        few = f"of fewer than {FEW:,} images a critic learns each by heart"
        automatic = "; a fine-tune does that by itself" if parent.weights else ""
        found.append(Advice("augment", ",".join(AUGMENT), few + automatic))
    else:
        found.append(Advice("augment", "none", f"{n:,} images are enough for the critic"))
    found.append(
        Advice("mirror", "true or false", "true if each picture could as well be its mirror image, such as a face or "
               "a landscape; false with writing, digits, logos or sides that matter: look at the sheet")
    )  # fmt: skip
    if seen.classes:
        found.append(
            Advice("num_classes", str(len(seen.classes)), "for a model that knows classes; 0 ignores them")
        )
    return found


def _channels(seen: Survey) -> Advice:
    if seen.grey.mean() >= NEARLY_ALL:
        return Advice("channels", "1", "the images are grey")
    if any(each.alpha for each in seen.looks):
        return Advice("channels", "3", "transparency is laid over white; 4 learns it")
    return Advice("channels", "3", "the images are in colour")


def _length(n: int, parent: Parent) -> Advice:
    (least, most), times = (TRANSFER, SHOWN) if parent.weights else (SCRATCH, EPOCHS)
    kimg = _rounded(min(max(n * times / 1000, least), most))
    shown = round(1000 * kimg / n)
    start = "to begin with: follow RUN/samples, stop where they are best, or go on"
    frozen = ", so `auto` freezes half of the critic" if parent.weights and shown > OFTEN and n < FEW else ""
    return Advice("kimg", f"{kimg:g}", f"each of {counted(n, 'image')} is shown {shown:,} times{frozen}; {start}")


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def command(data: str, parent: Parent, advice: list[Advice]) -> str:
    """Return the command line that follows the suggestions."""
    value = {each.setting: each.value for each in advice}
    words = ["zoo", "finetune" if parent.weights else "train", parent.name, data, "--out", "runs/first"]
    words += ["--kimg", value["kimg"]]
    if value["batch"].isdigit():
        words += ["--batch", value["batch"]]
    native = str(parent.weights.resolution) if parent.weights else ""
    if value["resolution"] != native:
        words += ["--set", f"resolution={value['resolution']}"]
    if value["channels"] != "3":
        words += ["--set", f"channels={value['channels']}"]
    if value["augment"] != "none" and not parent.weights:
        words += ["--set", f"augment={value['augment']}"]
    return shlex.join(words)
