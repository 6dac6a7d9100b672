"""Draw docs/samples.png: 16 samples of each bundled model, one row a model, seed 0, none picked.

    python tools/make_sample_sheet.py
"""

from __future__ import annotations

from pathlib import Path

import torch

import zoo
from zoo.images import grid

ROOT = Path(__file__).parents[1]
MODELS = ("dcgan", "stylegan", "biggan", "vae")
COLUMNS = 16


def main() -> None:
    rows = []
    for name in MODELS:
        model = zoo.load(name)
        rows.append(model.sample(COLUMNS, seed=0, labels=model.each_class(COLUMNS)))
    picture = grid(torch.cat(rows), columns=COLUMNS)
    picture.resize((picture.width * 2, picture.height * 2), resample=0).save(ROOT / "docs" / "samples.png")


if __name__ == "__main__":
    main()
