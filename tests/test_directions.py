"""What each metric notices of noise, blur, a class left out and images repeated, and the page's table of it."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from zoo.data import open_images
from zoo.metrics.metric import SEEDED
from zoo.metrics.names import extractor, metric, metric_names

PAGE = Path(__file__).parent.parent / "docs/metrics.md"
N = 500                                                  # images of each set of fakes
FAULTS = ("noise", "blur", "class dropped", "50 images only")
EVERY, LOOKS, VARIETY = FAULTS, FAULTS[:2], FAULTS[2:]   # faults of what images look like, of which there are
# Value -> (metric, whether it falls where images are worse, the faults that it must notice).
VALUES = {
    "fid": ("fid", False, EVERY),
    "fid_infinity": ("fid_infinity", False, EVERY),
    "kid": ("kid", False, EVERY),
    "cmmd": ("cmmd", False, EVERY),
    "mind": ("mind", False, EVERY),
    "precision": ("precision_recall", True, LOOKS),
    "recall": ("precision_recall", True, EVERY),
    "density": ("density_coverage", True, LOOKS),
    "coverage": ("density_coverage", True, EVERY),
    "ndb": ("ndb", False, ("noise", *VARIETY)),
    "ndb_missing": ("ndb", False, ("noise", *VARIETY)),
    "js": ("ndb", False, ("noise", *VARIETY)),
    "vendi": ("vendi", True, VARIETY),
}


@cache
def features():
    """Features of half of the emoji, and of sets of the other half: as they are, and with one fault each."""
    images = open_images("emoji", resolution=32, channels=3)
    chance = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=chance)
    others = order[len(order) // 2 :]
    kept = torch.as_tensor(images.labels.tolist())[others] != images.classes.index("people-body")
    unseen = images.read(others[:N].tolist())
    noise = 80 * torch.randn(unseen.shape, generator=chance)
    sets = {
        "unseen": unseen,
        "noise": (unseen + noise).round().clamp(0, 255).to(torch.uint8),
        "blur": interpolate(avg_pool2d(unseen.float(), 4), scale_factor=4).round().to(torch.uint8),
        "class dropped": images.read(others[kept][:N].tolist()),
        "50 images only": unseen[:50].repeat(N // 50, 1, 1, 1),
    }
    pixels = extractor("pixels")
    assert {len(each) for each in sets.values()} == {N}
    return pixels(images.read(order[: len(order) // 2].tolist())), {name: pixels(each) for name, each in sets.items()}


@cache
def measured(name):
    real, sets = features()
    return {each: metric(name)(real, fake) for each, fake in sets.items()}


@pytest.mark.parametrize("value", VALUES)
def test_faults_move_it_the_right_way(value):
    name, falls, noticed = VALUES[value]
    found = {each: values[value] for each, values in measured(name).items()}
    for fault in noticed:
        better, worse = (found["unseen"], found[fault]) if falls else (-found["unseen"], -found[fault])
        assert worse < better, f"{value}: {found['unseen']:.4g} of unseen images, {found[fault]:.4g} with {fault}"


def test_every_metric_of_features_alone_is_asked():
    alone = {name for name in metric_names() if set(metric(name).inputs) <= set(SEEDED)}
    assert {name for name, _, _ in VALUES.values()} == alone


def test_different_bins_say_how_much_is_missing():
    found = measured("ndb")
    share = 386 / 1636                                   # of the class among all emoji
    assert found["unseen"]["ndb_missing"] < 0.02 < 0.05 < found["class dropped"]["ndb_missing"] < share


def table():
    lines = [f"| value | better | unseen images | {' | '.join(FAULTS)} |", "|---|---|---|---|---|---|---|"]
    for value, (name, falls, noticed) in VALUES.items():
        found = {each: f"{values[value]:.3g}" for each, values in measured(name).items()}
        cells = [f"**{found[fault]}**" if fault in noticed else found[fault] for fault in FAULTS]
        lines.append(f"| `{value}` | {'higher' if falls else 'lower'} | {found['unseen']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_pages_table_is_true():
    """Word for word but for the numbers, which may differ a little from machine to machine."""
    number = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?(?= \||\*)")
    wanted, page = table(), PAGE.read_text(encoding="utf-8")
    said = f"docs/metrics.md should hold this table:\n{wanted}"
    written = page[page.find(wanted.splitlines()[0]) :].splitlines()
    for theirs, ours in zip(written, wanted.splitlines()):
        assert number.sub("#", theirs) == number.sub("#", ours), said
        there, here = ([float(each) for each in number.findall(line)] for line in (theirs, ours))
        # A bin more or less is different; k-means may end otherwise where sums are rounded otherwise.
        assert there == pytest.approx(here, rel=0.06, abs=0.02 if "ndb" in ours else 1e-4), said


if __name__ == "__main__":
    print(table())
