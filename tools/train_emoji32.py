"""Train the weights that the wheel bundles: each architecture on the bundled emoji without smileys, at 32x32.

    python tools/train_emoji32.py dcgan --kimg 300 --out runs/dcgan
    python tools/train_emoji32.py dcgan --out runs/dcgan --install

StyleGAN learned in stages, shapes first and then detail:

    python tools/train_emoji32.py stylegan --kimg 100 --out runs/shapes
    python tools/train_emoji32.py stylegan --kimg 260 --out runs/stylegan --start runs/shapes/model

The weights in the wheel had 100 kimg of the first, then 60 and 200 of the second, the first 60 with a batch of 32.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import zoo
from zoo.cards import render
from zoo.images import save_grid
from zoo.storage import write_manifest
from zoo.training import Run, train
from zoo.weights import golden_hash, save

ROOT = Path(__file__).parents[1]
DATA = "emoji:-smileys-emotion"
FEATURES = "timm:tf_efficientnet_lite0@96"
COMMON = {"resolution": 32, "channels": 3}
# At most 2M parameters in generator and discriminator together: 4 MB in half precision.
CONFIGS = {
    "dcgan": {**COMMON, "latent": 64, "generator_width": 48, "discriminator_width": 48},
    "stylegan": {**COMMON, "latent": 128, "w": 128, "mapping_layers": 4, "channel_base": 1024, "channel_max": 128},
    "biggan": {
        **COMMON,
        "num_classes": 7,
        "width": 20,
        "generator_blocks": ((True, 8, 8), (True, 8, 4), (True, 4, 2)),
        "discriminator_blocks": ((True, 0, 2), (True, 2, 4), (True, 4, 8), (False, 8, 8)),
    },
    "vae": {**COMMON, "num_classes": 7},
}
# Without "color": the emoji stand on white, and shifted colours leak into the background.
AUGMENT = ("translation", "cutout")
RECIPES = {
    "dcgan": {"augment": AUGMENT, "batch": 32},
    "stylegan": {"augment": ("color", *AUGMENT), "batch": 32, "ema_kimg": 20.0},
    "biggan": {"augment": AUGMENT, "batch": 32},
    "vae": {"batch": 32},
}
ARGUMENTS = {"stylegan": {"gamma": 0.1}}
# The second stage: without what steadies the shapes, and with a falling learning rate.
DETAIL = {"anneal": "cosine", "final_rate": 0.1, "batch": 16}
DETAIL_ARGUMENTS = {"gamma": 0.1, "mixing": 0.0, "path_weight": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=CONFIGS)
    parser.add_argument("--out", required=True)
    parser.add_argument("--kimg", type=float, default=300)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--start", help="model folder of an earlier stage")
    parser.add_argument("--install", action="store_true", help="write the run's model into the plugin's weights folder")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.install:
        return install(arguments.architecture, Run.open(arguments.out))
    torch.manual_seed(0)
    model, recipe = prepared(arguments.architecture, arguments.start)
    for name, network in model.networks().items():
        print(name, sum(parameter.numel() for parameter in network.parameters()), flush=True)
    train(
        model, DATA, kimg=arguments.kimg, out=arguments.out, recipe=recipe, precision=arguments.precision, resume=True,
        tick_kimg=2, sample_kimg=20, checkpoint_kimg=20,
        progress=lambda done, total, values: print(f"{done:.1f}/{total} {values}", flush=True),
    )  # fmt: skip
    return None


def prepared(name: str, start: str | None) -> tuple[zoo.Model, zoo.Recipe]:
    """Return the model, new or from an earlier stage, and the recipe of its stage."""
    if start is None:
        model = zoo.create(name, **CONFIGS[name])
        return model, replace(model.recipe(**ARGUMENTS.get(name, {})), **RECIPES[name])
    model = zoo.load(f"dir:{start}")
    return model, replace(model.recipe(**DETAIL_ARGUMENTS), augment=AUGMENT, ema_rampup=None, **DETAIL)


def install(name: str, run: Run) -> None:
    """Write the run's model in half precision into its plugin, measure it, and write its card and sample grid."""
    model = run.model
    model.origin = {**model.origin, "license": "Apache-2.0"}      # as that of the emoji
    model.origin.pop("name", None)                                # of the run's folder
    folder = ROOT / "plugins" / f"zoo_{name}" / "weights" / "emoji32"
    save(model, folder, run=run.settings, half=True)
    shipped = zoo.load(f"dir:{folder}")
    found = zoo.evaluate(
        shipped, DATA, metrics=("kid", "precision_recall", "density_coverage"), samples=2000, features=FEATURES
    )
    title = f"{name}.emoji32"
    save_grid(shipped.sample(64, seed=0, labels=shipped.each_class(64)), ROOT / "model_cards" / f"{title}.png")
    facts = {"run": run.settings, "evaluation": found.to_dict()}
    for path, samples in ((folder / "README.md", None), (ROOT / "model_cards" / f"{title}.md", f"{title}.png")):
        card = render(shipped, samples=samples, **facts)
        path.write_text(card.replace("dir:PATH_OF_THIS_FOLDER", title))
    write_manifest(folder, *golden_hash(shipped))
    print(folder, (folder / "model.safetensors").stat().st_size, found, sep="\n")


if __name__ == "__main__":
    main()
