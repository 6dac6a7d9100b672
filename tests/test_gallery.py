"""The gallery of failures draws, and the guide tells the remedies of `zoo explain` in its order."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.append(str(Path(__file__).parent.parent / "benchmarks" / "challenges"))

import gallery

from zoo.remedies import REMEDIES, Made, tried

GUIDE = (Path(__file__).parent.parent / "docs" / "training.md").read_text(encoding="utf-8")
PLAYERS = [{"name": name, "trains": [name], "every": 1, "settings": {"loss": "LOSS"}}
           for name in ("discriminator", "generator")]  # fmt: skip
RECIPE = {"batch": 64, "lr": 2e-4, "betas": [0.9, 0.999], "augment": [], "anneal": "constant", "mirror": False,
          "clip_norm": None, "added": [], "loss": None}  # fmt: skip
DCGAN = {"config": {"resolution": 64, "num_classes": 8}, "precision": "fp16"}
AUTOENCODER = {
    "config": {"beta": 8.0, "free_bits": 0.02, "warmup": 0.1, "cycles": 1, "latent": 64},
    "recipe": {**RECIPE, "phases": [{"name": "autoencoder", "trains": ["encoder", "decoder"]}]},
}


def made(loss: str) -> Made:
    """The guide's DCGAN, as far as remedies depend on it: with every failing that one of them is for."""
    phases = [{**phase, "settings": {"loss": loss}} for phase in PLAYERS]
    return Made({**DCGAN, "recipe": {**RECIPE, "phases": phases}})


def told(heading: str) -> list[str]:
    """The options of the table below a heading of the guide, in order."""
    section = re.split(r"^#", GUIDE.partition(f"\n### {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (\d+) \| `([^`]*)`", section, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    return [option for _, option in rows]


@pytest.mark.parametrize("name", REMEDIES)
def test_the_guide_says_what_zoo_explain_says_and_in_its_order(name):
    guide = told(name.capitalize())
    runs = [Made(AUTOENCODER)] if name == "posterior collapse" else [made("nonsaturating"), made("wasserstein")]
    seen = set()
    for run in runs:
        options = [step["option"] for step in tried(name, run)]
        ranks = [guide.index(option) for option in options if option in guide]
        assert ranks == sorted(ranks), "the order is another"
        missing = [option for option in options if option not in guide]
        # ADA is for logits with a zero between reals and fakes; the row says what takes its place.
        assert missing in ([], ["--set augment=color,translation,cutout"])
        seen |= set(options)
    assert set(guide) <= seen


@pytest.mark.parametrize("name", ["overfitting", "posterior-collapse"])
def test_the_gallery_draws(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gallery.py", "--quick", "--only", name, "--out", str(tmp_path)])
    gallery.main()
    assert re.fullmatch(rf"{name}\.png: [a-z ,]+; \d+ s\n", capsys.readouterr().err)
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.size[0] == 900
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_every_picture_is_in_the_guide_and_small():
    for name in gallery.ARMS:
        assert f"](images/{name}.png)" in GUIDE
        assert (gallery.IMAGES / f"{name}.png").stat().st_size < 150_000


def test_the_nearest_image_is_a_copys_original():
    real = torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    places = torch.tensor([4, 0, 8, 4])
    assert torch.equal(gallery.nearest(0.9 * real[places], real), real[places])
