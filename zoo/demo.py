"""The whole journey on what the wheel brings along: load, sample, fine-tune, evaluate, compare, publish (dry run)."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import RunError

if TYPE_CHECKING:
    from zoo.evaluation import Evaluation
    from zoo.model import Model

PARENT = "stylegan"                        # trained on the other emoji
TARGET = "emoji:smileys-emotion"           # 169 images that the parent never saw
Bars = Callable[[str], AbstractContextManager[Any]]     # a title -> what shows progress (zoo.cli.progress.Progress)


@dataclass(frozen=True)
class Summary:
    """What the demo measured and where it left things."""

    rows: tuple[tuple[str, Evaluation], ...]      # (which model, how good it is)
    features: str
    directory: Path
    published: Path

    def table(self) -> list[tuple[str, str, str, str]]:
        """Return the header and one row a model: name, KID x 1000 with its standard error, precision, recall."""
        header = ("model", "KID x 1000", "precision", "recall")
        return [header] + [
            (
                name,
                f"{1000 * found['kid']:.1f} +- {1000 * found['kid_std_error']:.1f}",
                f"{found['precision']:.2f}",
                f"{found['recall']:.2f}",
            )
            for name, found in self.rows
        ]


def demo(
    out: Path,
    bars: Bars,
    *,
    kimg: float = 8.0,
    samples: int = 1000,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> Summary:
    """Fine-tune the bundled StyleGAN on smileys, train a scratch twin as long, and measure both and the parent.

    Args:
        out: folder for everything; must not hold an earlier demo.
        bars: makes a progress bar from a title.
        kimg: length of each training, in thousand images.
        samples: images generated for each evaluation.
        seed: of both trainings.
        say: prints one line.

    Raises:
        RunError: `out` holds files already.
    """
    from zoo.evaluation import evaluate
    from zoo.images import save_grid
    from zoo.loading import load
    from zoo.metrics.names import offline_features
    from zoo.publishing import publish
    from zoo.training import finetune, train
    from zoo.training.settings import check_arguments

    check_arguments(kimg=kimg, seed=seed)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} is not empty: remove it or give another folder with --out.")
    out.mkdir(parents=True, exist_ok=True)
    features = offline_features()

    def measure(what: Any, title: str) -> Evaluation:
        with bars(f"evaluate {title}") as bar:
            return evaluate(
                what, TARGET, metrics=("kid", "precision_recall"), samples=samples, features=features,
                progress=bar.images,
            )  # fmt: skip

    parent = load(PARENT)
    say(f"Loaded {parent.origin['name']}: {save_grid(parent.sample(64, seed=seed), out / 'parent.png')}")
    rows = [("parent, before", measure(parent, "parent"))]
    every: dict[str, Any] = {"kimg": kimg, "seed": seed, "tick_kimg": 0.25, "sample_kimg": 1.0, "checkpoint_kimg": kimg}
    settings = {"batch": 16}      # a small batch makes more steps of as many images: what a short run lacks
    with bars("fine-tune") as bar:
        run = finetune(PARENT, TARGET, out=out / "finetuned", progress=bar, settings=settings, **every)
    rows.append(("fine-tuned", measure(run, "fine-tuned")))
    with bars("train from scratch") as bar:
        alike = {**settings, "augment": tuple(run.settings["recipe"]["augment"])}
        twin = train(_scratch(parent, seed), TARGET, out=out / "scratch", progress=bar, settings=alike, **every)
    rows.append(("from scratch", measure(twin, "from scratch")))
    publication = publish(run, "you/smileys", dry_run=True)
    assert publication.directory is not None
    summary = Summary(tuple(rows), features, out, publication.directory)
    document = {"features": features, "kimg": kimg, "seed": seed, "models": {n: e.to_dict() for n, e in rows}}
    (out / "demo.json").write_text(json.dumps(document, indent=1) + "\n")
    return summary


def _scratch(parent: Model, seed: int) -> Model:
    import torch

    from zoo.loading import create

    torch.manual_seed(seed % 2**64)
    return create(parent.architecture, **parent.config.model_dump())
