"""Transfer to few images: every method of `zoo finetune` against training from scratch.

Scratch is shown as many images, and in some arms ten times as many, as are some methods; in batches of its recipe, and
in small ones, such as `zoo finetune` takes for so few images shown.
Pairs of domains: `smileys` needs nothing: the bundled weights, which never saw a smiley, learn 50 or 100 of the 169
bundled ones. Others are given as ``--pair NAME=SOURCE,TARGET``: image folders, or folders of MNIST's four files, such
as those of Fashion-MNIST and MNIST; a DCGAN is trained on the source first, once. Judged are samples against images of
the target that were not learnt from: KID and recall, in features that are on this machine.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness import Challenge, carry_out, parser

import zoo
from zoo.data import open_source
from zoo.data.order import permutation
from zoo.home import zoo_home
from zoo.metrics.names import offline_features
from zoo.noise import key
from zoo.storage import replaced
from zoo.transfer import AUGMENT

METHODS = (
    "parent", "scratch", "full", "freeze_d", "freeze_g", "scale_shift", "l2_sp", "ewc", "cdc:anchors=0", "cdc", "lora",
)  # fmt: skip
# What a fresh critic needs, as most published generators come without theirs.
FRESH = {
    "fresh": {},
    "fresh, R1": {"add": ["r1:gamma=10"]},
    "fresh, R1, slow": {"add": ["r1:gamma=10", "ttur:generator=0.5,discriminator=1"]},
    "fresh, slow": {"add": ["ttur:generator=0.5,discriminator=1"]},
}
# How firmly the penalties hold.
WEIGHTS = (
    "l2_sp:weight=0.01", "l2_sp:weight=1", "ewc:weight=0.01", "ewc:weight=1", "cdc:weight=100", "lora:rank=2",
)  # fmt: skip
KIMG, SAMPLES = 6.0, 1000
LONG = 10      # times as many images: what a method should spare
LONGER = ("scratch", "full", "freeze_d", "lora")      # what is also trained for so long
SMALL = 8      # images of a batch of scratch's second arm
OWN = {"dcgan": 64, "stylegan": 32}      # those of the recipe, which `zoo finetune` would make smaller
PARENT = {"resolution": 32, "generator_width": 32, "discriminator_width": 32}
PARENT_KIMG, PARENT_BATCH = 200.0, 16


@dataclass(frozen=True)
class Pair:
    """A parent, what it is fine-tuned on, and how many images of that are held out."""

    parents: tuple[str, ...]
    target: str
    counts: tuple[int, ...]
    held: int
    source: str = ""      # what the parent is trained on here; "": it is there


SMILEYS = Pair(("dcgan", "stylegan"), "emoji:smileys-emotion", (50, 100), 69)


def arms(pairs: Mapping[str, Pair], kimg: float) -> dict[str, dict[str, Any]]:
    """Return name -> settings of everything that is compared."""
    found: dict[str, dict[str, Any]] = {}
    for pair, of in pairs.items():
        for parent in of.parents:
            for n in of.counts:
                settings = {"pair": pair, "parent": parent, "n": n, "kimg": kimg, "samples": SAMPLES}
                place = f"{pair}, {parent}, {n} images:"
                for method in LONGER:
                    found[f"{place} {method} x {LONG}"] = {**settings, "method": method, "kimg": LONG * kimg}
                tried = {name: {"method": name} for name in (*METHODS, *WEIGHTS)}
                tried |= {name: {"method": "full", "fresh": True, **more} for name, more in FRESH.items()}
                tried |= {"full, R1": {"method": "full", "add": ["r1:gamma=10"]}}
                for name, how in tried.items():
                    found[f"{place} {name}"] = {**settings, **how}
                    if name not in ("parent", "scratch"):      # which has them anyway
                        found[f"{place} {name}, batches of {OWN[parent]}"] = {**settings, **how, "batch": OWN[parent]}
                for name, times in (("", 1), (f" x {LONG}", LONG)):
                    small = {"method": "scratch", "batch": SMALL, "kimg": times * kimg}
                    found[f"{place} scratch, batches of {SMALL}{name}"] = {**settings, **small}
    return found


class Transfer:
    """Measures the arms of some pairs."""

    def __init__(self, pairs: Mapping[str, Pair]):
        self.pairs = pairs

    def measure(self, arm: Mapping[str, Any], seed: int, folder: Path) -> dict[str, Any]:
        """Train one arm and return KID, recall and precision of its samples."""
        pair = self.pairs[arm["pair"]]
        torch.manual_seed(key("transfer", seed))
        learnt, held = split(pair, arm["n"], seed, folder)
        options = {"seed": seed} | {name: arm[name] for name in ("kimg", "add", "batch") if name in arm}
        out = folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        parent = arm["parent"] if not pair.source else f"dir:{trained(arm['pair'], pair.source)}"
        model = zoo.load(parent)
        reason = ""
        if arm["method"] == "scratch":
            model = zoo.create(model.architecture, **model.config.model_dump())
            settings = {"augment": AUGMENT, "ema_kimg": min(model.recipe().ema_kimg, arm["kimg"] / 10)}
            model = zoo.train(model, learnt, out=out, settings=settings, **options).model
        elif arm["method"] != "parent":      # which is judged as it is
            if arm.get("fresh"):
                model.without(("discriminator",))
            run = zoo.finetune(model, learnt, out=out, method=arm["method"], **options)
            model, reason = run.model, run.settings["method_reason"]
        found = zoo.evaluate(model, held, metrics=("kid", "precision_recall"), samples=arm["samples"],
                             features=offline_features(), force=True)  # fmt: skip
        return {**found.values, "features": offline_features(), "reason": reason}


def split(pair: Pair, n: int, seed: int, folder: Path) -> tuple[Path, Path]:
    """Write n images of the target and those held out into folders of their own, other ones with each seed."""
    source = open_source(drawn(pair.target))
    order = permutation(len(source.names), key("split", seed))
    parts = {"held": order[: pair.held], "learnt": order[pair.held : pair.held + n]}
    for name, places in parts.items():
        if len(places) < (n if name == "learnt" else pair.held):
            raise SystemExit(f"{pair.target} has {len(order)} images, too few for {n} and {pair.held} held out.")
        (folder / name).mkdir(exist_ok=True)
        for place in places:
            with source.open(int(place)) as image:
                (folder / name / f"{place}.png").write_bytes(image.read())
    return folder / "learnt", folder / "held"


def drawn(given: str) -> str:
    """Return data that may be a folder of MNIST's four files as one of images, made once; other data as it is."""
    from digits import FILES, idx

    folder = Path(given)
    if not any((folder / f"{FILES[0]}{end}").exists() for end in ("", ".gz")):
        return given
    images = zoo_home() / "challenges" / "transfer" / f"images-{key(str(folder.resolve()))}"
    if not images.exists():
        replaced(images, lambda draft: write(idx(folder, FILES[0]), draft))
    return str(images)


def write(images: torch.Tensor, folder: Path) -> None:
    """Write grey images uint8 [N, H, W] as files."""
    from PIL import Image

    folder.mkdir(parents=True)
    for number, pixels in enumerate(images.numpy()):
        Image.fromarray(pixels).save(folder / f"{number:06}.png")


def trained(pair: str, source: str) -> Path:
    """Return the model that was trained on a pair's source, training it first or going on with that."""
    out = zoo_home() / "challenges" / "transfer" / f"parent-{pair}-{PARENT_KIMG:g}"
    if not (out / "model").exists():
        torch.manual_seed(0)
        model = zoo.create("dcgan", **PARENT, channels=colours(drawn(source)))
        zoo.train(model, drawn(source), kimg=PARENT_KIMG, batch=PARENT_BATCH, out=out, resume=True)
    return out / "model"


def colours(data: str) -> int:
    """Return the channels of the first image: 1 of a grey one, else 3."""
    from PIL import Image

    with open_source(data).open(0) as file, Image.open(file) as image:
        return 1 if image.mode == "L" else 3


def plot(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw KID and recall of each method, a row for each parent and number of images; a dot is a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys(run["arm"].partition(":")[0] for run in runs))
    of = {group: [run for run in runs if run["arm"].startswith(f"{group}: ")] for group in groups}
    heights = [1.5 + len({run["arm"] for run in mine}) / 3 for mine in of.values()]
    figure, axes = pyplot.subplots(
        len(groups), 2, figsize=(10, sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for row, (group, mine) in zip(axes, of.items()):
        names = list(dict.fromkeys(run["arm"].partition(": ")[2] for run in mine))
        for axis, column in zip(row, ("kid", "recall")):
            for run in mine:
                place = names.index(run["arm"].partition(": ")[2])
                axis.plot(run["results"][column], place, "o", color="tab:blue", alpha=0.7)
            axis.set_yticks(range(len(names)), names if column == "kid" else [])
            axis.set(xlabel=column, title=group if column == "kid" else "")
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.grid(alpha=0.3)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def pair_of(text: str) -> tuple[str, Pair]:
    """Return a pair that is written NAME=SOURCE,TARGET."""
    name, equals, rest = text.partition("=")
    source, comma, target = rest.partition(",")
    if not (name and equals and source and comma and target):
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=SOURCE,TARGET, such as digits=data/fashion,data/mnist")
    return name, Pair(("dcgan",), target, (50, 100, 500), 1000, source)


def main() -> None:
    """Measure what is not known yet."""
    options = parser(__doc__)
    options.add_argument("--pair", type=pair_of, action="append", default=[], metavar="NAME=SOURCE,TARGET",
                         help="a further pair: what a parent is trained on, and what it is fine-tuned on")  # fmt: skip
    options.add_argument("--kimg", type=float, default=KIMG, help="thousand images that each arm is shown")
    chosen = options.parse_args()
    pairs = {"smileys": SMILEYS, **dict(chosen.pair)}
    quick = {"kimg": 0.13, "samples": 64}
    carry_out(
        Challenge("transfer", arms(pairs, chosen.kimg), Transfer(pairs).measure, ("kid", "recall", "precision"), 3,
                  quick, plot), chosen
    )  # fmt: skip


if __name__ == "__main__":
    main()
