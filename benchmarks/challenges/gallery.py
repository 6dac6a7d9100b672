"""Draw for the docs what a healthy training and failing ones look like: samples, and the watchdog's numbers meanwhile.

Tiny DCGANs and VAEs on 32x32 emoji, all in less than four minutes of one core. Arms and how they are measured are
those of `watchdog.py`, at twice the size so that there is something to see. Nothing is forced: each fails by settings
that a user may well choose.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from harness import selected
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from watchdog import DCGAN, VAE, gan, images, measure, vae

import zoo
from zoo.data import normalise
from zoo.images import grid
from zoo.watchdog.holdout import divided
from zoo.watchdog.signs import LIMITS

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
LARGE = {"resolution": 32}
ACROSS = 16                       # images in a strip
COLOURS = 256                     # of a picture: a third of the bytes of all of them
QUICK = {"resolution": 16, "kimg": 2.6}      # one look of the watchdog
VARIETY = ("spread", "apart", "vendi", "coverage")
LOGITS = {"logit_real": "training images", "logit_held": "held out images", "logit_fake": "samples"}
LATENTS = {"kl": "KL, nats of an image", "active": "active dimensions"}


def shown(title: str, arm: Mapping[str, Any], rows: str = "samples", seed: int = 0) -> dict[str, Any]:
    """Return an arm of the gallery.

    Args:
        title: what is unusual about it.
        arm: as those of `watchdog.py`.
        rows: "samples"; "nearest", with the training image next to each below; or "decoded", of an autoencoder, with
            images and what becomes of them.
        seed: of weights, latents and batches.
    """
    return {"title": title, "arm": dict(arm), "rows": rows, "seed": seed}


def large(config: Mapping[str, Any] = {}, **more: Any) -> dict[str, Any]:
    return gan({**DCGAN, **LARGE, **config}, hold_out=64, **{"kimg": 18.5, **more})


ARMS = {
    "healthy": shown("DCGAN of all emoji, lr=0.001", large()),
    "mode-collapse": shown(
        "DCGAN without discriminator_norm, ttur:generator=20,discriminator=1",
        large({"discriminator_norm": False}, kimg=8.0, add=["ttur:generator=20,discriminator=1"]),
    ),
    "divergence": shown(
        "DCGAN without discriminator_norm, lr=0.01",
        large({"discriminator_norm": False}, kimg=11.0, settings={"lr": 1e-2}),
    ),
    "overfitting": shown("DCGAN of 32 emoji, not augmented", large(data=96), "nearest"),
    "vae": shown("VAE, beta=1", vae({**VAE, **LARGE}, kimg=13.0), "decoded"),
    "posterior-collapse": shown(
        "VAE, beta=200 and no free bits", vae({**VAE, **LARGE, "beta": 200.0, "free_bits": 0.0}, kimg=9.0), "decoded"
    ),
}


@dataclass(frozen=True)
class Scene:
    """One training, as it is drawn."""

    title: str
    rows: Mapping[str, Tensor]              # label -> images [ACROSS, C, H, W] in [-1, 1]
    looks: Sequence[Mapping[str, Any]]      # what the watchdog saw
    findings: Sequence[Mapping[str, Any]]   # what it called it


def scene(title: str, arm: Mapping[str, Any], rows: str, seed: int, folder: Path) -> Scene:
    """Train an arm in a folder, and return what there is to draw of it."""
    results = measure(arm, seed, folder)
    model = zoo.Run(folder / "run").model
    model.averages = nn.ModuleDict()      # the networks as they are, which is what the watchdog looks at
    samples = model.sample(ACROSS, seed=seed)
    kept, _ = divided(images(arm, seed), arm["hold_out"] or 0)
    real = normalise(kept.read(range(len(kept))))
    strips = {"samples": samples}
    if rows == "nearest":
        strips["nearest"] = nearest(samples, real)
    elif rows == "decoded":
        given = real[:: len(real) // ACROSS][:ACROSS]
        strips = {"images": given, "decoded": decoded(model, given), **strips}
    return Scene(title, strips, results["looks"], results["findings"])


def nearest(samples: Tensor, real: Tensor) -> Tensor:
    """Return for each sample [N, C, H, W] the image of real [M, C, H, W] that differs least in its pixels."""
    return real[torch.cdist(samples.flatten(1), real.flatten(1)).argmin(1)]


def decoded(model: Any, given: Tensor) -> Tensor:
    """Return what an autoencoder makes of images [N, C, H, W]."""
    made: Tensor = model.decode(model.encode(given).mean, clamp=True)
    return made


# The picture.


def draw(found: Scene, path: Path) -> None:
    """Write the picture of a training: its images, and below what was measured over its thousands of images."""
    figure = Figure(figsize=(9, 2.5 + 0.62 * len(found.rows)), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(0.62 * len(found.rows), 2.2))
    told = "; ".join(f"{each['name']}, told at {each['told']:.3g} kimg" for each in found.findings)
    figure.suptitle(f"{found.title}. The watchdog: {told or 'nothing'}", fontsize=9)
    for axis, (label, row) in zip(above.subplots(len(found.rows), squeeze=False)[:, 0], found.rows.items()):
        axis.imshow(grid(row, columns=len(row)), interpolation="nearest")
        axis.set_ylabel(label, fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    left, right = below.subplots(1, 2)
    variety(left, found.looks)
    if any("logit_real" in look for look in found.looks):
        logits(right, found.looks)
    else:
        latents(right, found.looks)
    for axis in (left, right):
        axis.set_xlabel("kimg", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7, frameon=False, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = BytesIO()
    figure.savefig(drawn, dpi=100)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def variety(axis: Axes, looks: Sequence[Mapping[str, Any]]) -> None:
    """Draw how much samples differ, in proportion to real images."""
    for name in VARIETY:
        line(axis, [(look["kimg"], look.get(name)) for look in looks], name)
    axis.axhline(LIMITS["apart"].value, color="0.6", linestyle=":", label="limit of spread and apart")
    axis.set_ylim(0, 1.6)
    axis.set_title("samples, compared with real images", fontsize=8)


def logits(axis: Axes, looks: Sequence[Mapping[str, Any]]) -> None:
    """Draw what the critic thinks of images that it has learnt from, of others, and of samples."""
    for name, label in LOGITS.items():
        line(axis, [(look["kimg"], look.get(name)) for look in looks], label)
    axis.set_title("the critic's mean logit", fontsize=8)
    axis.margins(y=0.25)


def latents(axis: Axes, looks: Sequence[Mapping[str, Any]]) -> None:
    """Draw how much the latents of an autoencoder say."""
    for name, label in LATENTS.items():
        line(axis, [(look["kimg"], look["terms"].get(f"autoencoder.{name}")) for look in looks], label)
    axis.axhline(LIMITS["kl"].value, color="0.6", linestyle=":", label="limit of both")
    axis.set_yscale("symlog", linthresh=1)
    axis.set_ylim(-0.1, 200)
    axis.set_title("what the latents say", fontsize=8)


def line(axis: Axes, points: Sequence[tuple[float, float | None]], label: str) -> None:
    known = [(x, y) for x, y in points if y is not None]
    axis.plot([x for x, _ in known], [y for _, y in known], marker=".", linewidth=1, label=label)


def main() -> None:
    """Train every arm and draw it."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--only", action="append", default=[], metavar="WORD", help="pictures whose name holds it")
    options.add_argument("--out", type=Path, help="folder of the pictures; default: docs/images")
    options.add_argument("--quick", action="store_true", help="a few steps of everything, kept in a folder that goes")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        out = chosen.out or (scratch / "images" if chosen.quick else IMAGES)
        for name, given in selected(ARMS, chosen.only).items():
            arm = given["arm"]
            if chosen.quick:
                config = {**arm["config"], "resolution": QUICK["resolution"]}
                arm = {**arm, "config": config, "kimg": QUICK["kimg"]}
            begun = time.process_time()
            found = scene(given["title"], arm, given["rows"], given["seed"], scratch)
            draw(found, out / f"{name}.png")
            names = ", ".join(each["name"] for each in found.findings) or "nothing"
            print(f"{name}.png: {names}; {time.process_time() - begun:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
