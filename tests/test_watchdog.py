"""The watchdog: what it measures, what it calls by name and when, and that it leaves no trace in a training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.undisturbed import differences, lines
from processes import together
from safetensors.torch import load_file
from torch import Tensor

import zoo
from zoo.data import open_images
from zoo.errors import Collapsed
from zoo.training import chance
from zoo.training.checkpoints import step_of, steps
from zoo.watchdog.history import History
from zoo.watchdog.holdout import divided, spare
from zoo.watchdog.look import Eye
from zoo.watchdog.readings import EVERY, SAMPLES, Seen
from zoo.watchdog.reference import Reference
from zoo.watchdog.signs import COLLAPSE, DIVERGENCE, LIMITS, OSCILLATES, POSTERIOR, SIGNS

ROOT = Path(__file__).parent.parent
LOOK = EVERY * SAMPLES      # images between two looks
BATCH = 128
TINY = {"resolution": 16, "latent": 4, "generator_width": 4, "discriminator_width": 4}
SMALL = {"resolution": 16, "latent": 16, "generator_width": 8, "discriminator_width": 8}
VAE = {"resolution": 8, "width": 4, "widest": 8, "latent": 4, "prior": "normal"}
SILENT = {**VAE, "beta": 1000.0, "free_bits": 0.0, "warmup": 0.0}
QUIET = {"sample_kimg": 1000, "checkpoint_kimg": 1000}


def names(run: zoo.Run) -> set[str]:
    """Return all that the log of a run calls by name."""
    return {finding["name"] for line in run.log for finding in line.get("findings", [])}


def looked(run: zoo.Run) -> list[dict[str, float]]:
    return [line["watchdog"] for line in run.log if "watchdog" in line]


def train(
    out: Path, config: dict[str, Any] = TINY, *, looks: float = 3.1, name: str = "dcgan", **options: Any
) -> zoo.Run:
    torch.manual_seed(0)
    model = zoo.create(name, **config)
    if "one_image" in options:
        collapse(model, options.pop("one_image"))
    options = {"settings": {"lr": 1e-3}, "batch": BATCH, "tick_kimg": LOOK / 1000, **QUIET, **options}
    return zoo.train(model, "emoji", kimg=looks * LOOK / 1000, out=out, **options)


def collapse(model: zoo.Model, active: list[bool]) -> None:
    """Have a generator see the same latent for all images, as long as `active` says so."""
    whole = model.latent

    def latent(n: int, noise: Any, psi: float = 1.0) -> Tensor:
        z = whole(n, noise, psi)
        return torch.ones_like(z) if active[0] else z

    model.latent = latent


# What is measured.


def features(n: int, seed: int) -> Tensor:
    return torch.randn(n, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_samples_that_are_like_reals_are_told_so():
    found = Reference.of(features(1000, 0)).compare(features(256, 1), whole=True)
    assert found["spread"] == pytest.approx(1, abs=0.05)
    assert found["apart"] == pytest.approx(1, abs=0.1)
    assert found["vendi"] == pytest.approx(1, abs=0.1)
    assert found["recall"] > 0.8
    assert found["coverage"] > 0.8
    assert found["missing"] < 0.2
    assert found["offset"] < 0.2
    assert found["copies"] == 0


def test_copies_collapse_and_an_offset_are_told():
    real = features(500, 0)
    known = Reference.of(real)
    assert known.compare(real[:256], whole=True)["copies"] == 1
    assert "copies" not in known.compare(real[:256], whole=False)
    one = known.compare(real[:1].expand(256, -1), whole=False)
    assert one["spread"] == pytest.approx(0, abs=1e-6)
    assert one["apart"] == pytest.approx(0, abs=1e-6)
    assert one["vendi"] * known.vendi == pytest.approx(1)
    far = known.compare(real[:256] + 3 * known.deviation / 12**0.5, whole=False)      # so far along the diagonal
    assert far["offset"] == pytest.approx(3, abs=0.2)
    assert far["recall"] == 0


@pytest.mark.parametrize("config", [{}, {"num_classes": 8}])
def test_a_look_leaves_no_trace(config):
    torch.manual_seed(0)
    model = zoo.create("dcgan", **TINY, **config).follow(("generator",))
    model.train()
    model.discriminator.eval()      # as where a network stands still
    images = open_images("emoji", resolution=16, channels=3)
    eye = Eye(images, None, 3, mirror=True)
    before, averages = {name: value.clone() for name, value in model.state_dict().items()}, model.averages
    modes, drawn = [module.training for module in model.modules()], chance.state()
    first = eye.look(model)
    assert model.averages is averages
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, drawn[name]) for name, value in chance.state().items())
    assert eye.look(model) == first == Eye(images, None, 3, mirror=True).look(model)
    assert {"spread", "apart", "vendi", "recall", "coverage", "ndb", "offset", "logit_real"} <= set(first.numbers)
    assert "copies" not in first.numbers      # there are more images than it looks at


def test_samples_that_are_not_finite_are_told():
    model = zoo.create("dcgan", **TINY)
    model.generator.to_image.bias.data.fill_(float("nan"))
    seen = Eye(open_images("emoji", resolution=16, channels=3), None, 0, mirror=False).look(model)
    assert seen.numbers == {"broken": 1.0}


def test_a_critic_that_takes_other_numbers_of_images_is_not_asked():
    from zoo.packing import pack

    images = open_images("emoji", resolution=16, channels=3)
    for m, asked in ((2, True), (3, False)):
        model = pack(zoo.create("dcgan", **TINY), m)
        numbers = Eye(images, None, 0, mirror=False).look(model).numbers
        assert ("logit_real" in numbers) is asked
        assert "spread" in numbers


def test_images_are_held_out_of_large_sets_alone(tmp_path):
    images = open_images("emoji", resolution=16, channels=3)
    assert spare(images) == 0      # 1 % of them says nothing
    shown, held = divided(images, 64)
    assert (len(shown), len(held)) == (len(images) - 64, 64)
    everything = {bytes(image.numpy()) for image in images.read(range(len(images)))}
    parts = [{bytes(image.numpy()) for image in part.read(range(len(part)))} for part in (shown, held)]
    assert parts[0] | parts[1] == everything
    assert shown.labels is not None
    pixels, labels = shown.rows([5, 700])
    assert torch.equal(labels, torch.from_numpy(shown.labels[[5, 700]]))
    assert torch.equal(pixels, shown.read([5, 700]))
    assert divided(images, 0) == (images, None)


# What lasts is called by its name.


def history(readings: list[dict[str, float]], middles: list[float] | None = None) -> tuple[History, list[str]]:
    """Look once for each reading, and place of the samples' mean if given; return the names as they came."""
    seen, told = History(), []
    for number, reading in enumerate(readings, 1):
        look = Seen(reading, (middles[number - 1],) if middles else ())
        told += [each.name for each in seen.add(20 * number, BATCH, 10 * LOOK, {}, look, 0)]
    return seen, told


WELL = {"spread": 0.9, "apart": 0.8, "vendi": 0.7, "offset": 0.3}
ALIKE = {"spread": 0.05, "apart": 0.01, "vendi": 0.1, "offset": 0.3}


def test_one_bad_look_is_no_alarm():
    for pattern in ([ALIKE], [ALIKE, ALIKE], [WELL, ALIKE, WELL, ALIKE, ALIKE, WELL]):
        assert history(pattern)[1] == []


def test_what_lasts_is_called_once_with_its_beginning_and_is_over_after_two_good_looks():
    seen, told = history([WELL, WELL, ALIKE, ALIKE, ALIKE, ALIKE])
    assert told == [COLLAPSE]
    (finding,) = seen.findings
    assert (finding.since, finding.good) == (60, 40)
    assert "0.05 times as much" in finding.evidence
    assert f"(limit {LIMITS['spread'].value:g})" in finding.evidence
    assert [len(history([WELL, ALIKE, ALIKE, ALIKE, *[WELL] * n])[0].findings) for n in (0, 1, 2)] == [1, 1, 0]


def test_samples_that_are_still_alike_as_a_long_training_begins_are_no_collapse():
    def told(readings: list[dict[str, float]]) -> list[str]:
        seen = History()
        return [each.name for number, reading in enumerate(readings, 1)
                for each in seen.add(20 * number, BATCH, 1000 * LOOK, {}, Seen(reading), 0)]  # fmt: skip

    assert told([ALIKE] * 10) == []
    assert told([WELL, *[ALIKE] * 10]) == [COLLAPSE]      # but they differed already


def test_samples_that_leave_what_they_covered_are_a_collapse_though_they_differ():
    had = {**WELL, "coverage": 0.6, "missing": 0.3}
    lost = {**WELL, "coverage": 0.1, "missing": 0.95}
    assert history([had, lost, lost, lost])[1] == [COLLAPSE]
    assert history([lost] * 6)[1] == []                                        # it has not had more: slow, or young
    assert history([had, *[{**lost, "missing": 0.8}] * 6])[1] == []
    assert history([had, *[{**lost, "coverage": 0.2}] * 6])[1] == []


def wandering(middles: list[float], offset: float) -> list[str]:
    return history([{**WELL, "offset": offset}] * len(middles), middles)[1]


def test_samples_that_wander_and_stay_off_the_data_oscillate():
    to_and_fro = [0.0, 0.6] * 4
    assert wandering(to_and_fro, offset=0.8) == [OSCILLATES]
    assert wandering(to_and_fro, offset=0.4) == []             # a young network, which comes nearer
    assert wandering([0.0, 0.3] * 4, offset=0.8) == []         # off, but it stands
    assert wandering(to_and_fro[:6], offset=0.8) == []         # five moves, seen once
    assert wandering([*[0.0] * 4, 1.0, *[1.0] * 3], offset=0.8) == []     # one leap is no oscillation


def test_a_critic_that_runs_away_is_divergence_whichever_side_it_favours():
    wild = [{**WELL, "logit_real": real, "logit_fake": 0.0, "logit_spread": 400.0} for real in (700.0, 3.0, -500.0)]
    assert history(wild)[1] == [DIVERGENCE]
    assert history([{**each, "logit_spread": 20.0} for each in wild])[1] == []


def test_a_history_goes_on_from_its_state():
    readings = [WELL, WELL, ALIKE, ALIKE, ALIKE, WELL]
    for cut in range(len(readings)):
        whole, _ = history(readings)
        part, _ = history(readings[:cut])
        rest = History()
        rest.restore(part.state())
        for number, reading in enumerate(readings[cut:], cut + 1):
            rest.add(20 * number, BATCH, 10 * LOOK, {}, Seen(reading), 0)
        assert rest.state() == whole.state()


def test_every_limit_has_a_reason_and_stands_in_the_documentation():
    page = (ROOT / "docs" / "watchdog.md").read_text()
    for name, limit in LIMITS.items():
        assert f"| `{name}` | {limit.value:g} | {limit.why} |" in page
    for sign in SIGNS:
        assert f"### {sign.name.capitalize()}" in page


# In a training.


def test_a_generator_of_one_image_is_called_mode_collapse_and_nothing_else(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "zoo"):
        run = train(tmp_path / "run", one_image=[True])
    assert names(run) == {COLLAPSE}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith(f"Step 60: {COLLAPSE} since 2.56 kimg: samples differ 0 times as much as reals")
    card = (run.directory / "model" / "README.md").read_text()
    assert COLLAPSE in card
    told = zoo.explain(run)
    assert [each.name for each in told.found] == [COLLAPSE]
    assert told.found[0].next[0]["option"].startswith("--add r1:gamma=")


def test_a_healthy_run_raises_nothing(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "zoo"):
        run = train(tmp_path / "run", SMALL, looks=4)
    assert names(run) == set()
    assert len(looked(run)) == 4
    assert not caplog.records
    assert "watchdog" not in (run.directory / "model" / "README.md").read_text()
    assert zoo.explain(run).found == ()


def test_a_vae_whose_latents_say_nothing_is_called_posterior_collapse(tmp_path):
    run = train(tmp_path / "run", SILENT, name="vae", settings={})
    assert names(run) == {POSTERIOR}
    options = [step["option"] for step in zoo.explain(run).found[0].next]
    assert options[:2] == ["--set beta=250", "--set free_bits=0.1"]


def test_off_means_that_nothing_is_looked_at(tmp_path):
    run = train(tmp_path / "run", one_image=[True], on_collapse="off", looks=1.1)
    assert not looked(run)
    assert not names(run)


@pytest.mark.slow
def test_a_training_that_stops_is_saved_and_goes_on_when_asked_to(tmp_path):
    with pytest.raises(Collapsed, match=r"Step 60: mode collapse .*; stopped and saved at 7\.68 of .* `zoo explain "):
        train(tmp_path / "run", looks=5, one_image=[True], on_collapse="stop")
    assert step_of(steps(tmp_path / "run" / "checkpoints")[-1]) == 60
    assert zoo.explain(tmp_path / "run").state == "broken off"
    run = train(tmp_path / "run", looks=5, one_image=[True], on_collapse="stop", resume=True)
    assert run.log[-1]["step"] == 100


class Back(logging.Handler):
    """Ends a collapse once a training has gone back, and notes whether its weights are those of the checkpoint."""

    def __init__(self, out: Path, active: list[bool]):
        super().__init__()
        self.out, self.active, self.model = out, active, None
        self.same: list[bool] = []

    def emit(self, record: logging.LogRecord) -> None:
        if "Back to step" not in record.getMessage():
            return
        self.active[0] = False
        step = int(record.getMessage().split("Back to step ")[1].split()[0])
        saved = load_file(self.out / "checkpoints" / f"{step:08d}" / "model.safetensors")
        state = self.model.state_dict()
        self.same.append(saved.keys() == state.keys() and all(torch.equal(saved[name], state[name]) for name in saved))


def test_going_back_restores_the_weights_of_before_and_goes_on(tmp_path):
    active, out = [False], tmp_path / "run"
    back = Back(out, active)
    torch.manual_seed(0)
    back.model = model = zoo.create("dcgan", **SMALL)
    collapse(model, active)

    def begin(kimg: float, whole: float, values: Any) -> None:
        active[0] = active[0] or (kimg > 1.5 * LOOK / 1000 and not back.same)

    logger = logging.getLogger("zoo")
    logger.addHandler(back)
    try:
        run = zoo.train(model, "emoji", kimg=6 * LOOK / 1000, batch=BATCH, out=out, settings={"lr": 1e-3}, keep=1,
                        tick_kimg=LOOK / 1000, checkpoint_kimg=LOOK / 1000, sample_kimg=1000,
                        on_collapse="rollback", progress=begin)  # fmt: skip
    finally:
        logger.removeHandler(back)
    assert back.same == [True]
    (record,) = [fault for line in run.log for fault in line.get("faults", [])]
    # Looks at 20 and 40 saw nothing, those at 60, 80 and 100 did: all of them had checkpoints, of which one is kept.
    assert (record["step"], record["to"], record["watchdog"], record["rate"]) == (100, 40, COLLAPSE, 0.5)
    lrs = {line["step"]: line["lr"] for line in run.log}
    assert [lrs[step] / lrs[20] for step in (40, 60, 120)] == [1, 0.5, 0.5]
    assert [line["step"] for line in run.log] == [20, 40, 60, 80, 100, 120]
    card = (out / "model" / "README.md").read_text()
    assert f"{COLLAPSE}: went back once" in card
    assert "values that were not finite" not in card
    told = zoo.explain(run).found[0]
    assert (told.name, told.since, told.until) == (COLLAPSE, 5.12, 12.8)


@pytest.mark.slow
def test_a_collapse_that_comes_again_and_again_ends_the_training(tmp_path):
    with pytest.raises(Collapsed, match="after going back 3 times"):
        train(tmp_path / "run", one_image=[True], on_collapse="rollback", looks=3.5)


# A training that is resumed sees the same, in several processes too.


def work(out: Path, looks: float, processes: int) -> None:
    train(out, looks=looks, one_image=[True], resume=True, checkpoint_kimg=1.024, settings={"anneal": "constant"})


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_training_sees_what_an_undisturbed_one_sees(tmp_path, processes):
    for out, looks in (("whole", 3.3), ("parts", 2.3), ("parts", 3.3)):
        if processes > 1:
            together(work, processes, tmp_path / out, looks, processes)
        else:
            work(tmp_path / out, looks, processes)
    grids = {path.name for path in (tmp_path / "parts" / "samples").iterdir()}
    assert differences(tmp_path / "parts", tmp_path / "whole", also=grids) == []
    assert any("findings" in line for line in lines(tmp_path / "whole"))
