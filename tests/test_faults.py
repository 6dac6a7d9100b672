"""Values that are not finite, and memory that runs out: named, left out or gone back from, never saved."""

from __future__ import annotations

import logging
import re
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.kinds import DCGAN, SCHEDULE, STYLEGAN, Break, Kind, infinite, nan, steep, train
from faults.undisturbed import differences
from processes import together
from safetensors.torch import load_file
from torch import Tensor, nn

import zoo
from zoo.errors import Diverged, RunError
from zoo.noise import Noise, key
from zoo.recipe import Batch, Terms
from zoo.training.checkpoints import read, steps

STEPS, BROKEN = 6, 2
KIND = Kind("dcgan", "dcgan", DCGAN)
BACK = replace(KIND, options={"patience": 2}, breaks=Break("generator", (2, 6, 7), nan, passing=True))


def faults(run: zoo.Run) -> list[dict[str, Any]]:
    """Return everything that the log says about faults."""
    return [fault for line in run.log for fault in line.get("faults", [])]


def overflowing(model: nn.Module, name: str) -> Any:
    """Have what a module takes overflow from now on; call what is returned to end that."""
    return model.get_submodule(name).register_forward_pre_hook(lambda module, taken: (taken[0] * 1e30 * 1e30,)).remove


class Watched:
    """A recipe whose losses note each network's state before they are computed."""

    def __init__(self, recipe: zoo.Recipe, phase: str, how: Any):
        self.seen: list[tuple[int, str, dict[str, Tensor]]] = []
        self._how, self._broken = how, phase
        self.recipe = replace(recipe, phases=tuple(replace(each, loss=self._noting(each)) for each in recipe.phases))

    def _noting(self, phase: zoo.Phase) -> Any:
        def loss(model: zoo.Model, batch: Batch) -> Terms:
            step = round(batch.progress * STEPS)
            state = {name: value.clone() for name, value in model.state_dict().items() if "averages" not in name}
            self.seen.append((step, phase.name, state))
            hit = step == BROKEN and phase.name == self._broken
            return self._how(phase.loss, model, batch) if hit else phase.loss(model, batch)

        return loss

    def around(self, phase: str, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the state before a phase's first loss in a step, and before the next other phase's loss."""
        first = next(i for i, (when, name, _) in enumerate(self.seen) if (when, name) == (step, phase))
        after = next(state for _, name, state in self.seen[first:] if name != phase)
        return self.seen[first][2], after


def by_terms(how: Any) -> Any:
    return lambda loss, model, batch: how(model, loss(model, batch))


def by_output(name: str) -> Any:
    def how(loss: Any, model: zoo.Model, batch: Batch) -> Terms:
        end = overflowing(model, name)
        try:
            return loss(model, batch)
        finally:
            end()

    return how


@pytest.mark.parametrize("phase", ["discriminator", "generator"])
@pytest.mark.parametrize(
    ("how", "term", "value", "tensor"),
    [
        (by_terms(nan), "adversarial", "nan", ""),
        (by_terms(infinite), "adversarial", "inf", ""),
        (by_terms(steep), "gradient", "inf|nan", "the gradient of {phase}.*"),
        (by_output("generator.head"), "adversarial", "nan", r"the output of generator\.head"),
    ],
    ids=["nan", "inf", "gradient", "output"],
)
def test_a_broken_step_is_left_out_and_named(phase, how, term, value, tensor, tmp_path, caplog):
    torch.manual_seed(0)
    model = zoo.create("dcgan", **DCGAN)
    watched = Watched(model.recipe(), phase, how)
    with caplog.at_level(logging.WARNING, "zoo"):
        run = zoo.train(model, "emoji", kimg=0.024, batch=4, out=tmp_path / "run", recipe=watched.recipe, **SCHEDULE)
    before, after = watched.around(phase, BROKEN)
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    before, after = watched.around(phase, BROKEN - 1)      # the same comparison around a whole step
    assert [name for name in before if not torch.equal(before[name], after[name])]
    (fault,) = faults(run)
    assert re.fullmatch(value, fault.pop("value"))
    assert re.fullmatch(tensor.format(phase=phase), fault.pop("tensor"))
    assert fault == {"step": BROKEN, "phase": phase, "term": term, "action": "skipped"}
    assert [line.get("skipped") for line in run.log] == [1, None, None]
    assert "1 step left out" in (run.directory / "model" / "README.md").read_text()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith(f"Step {BROKEN}: {phase}.{term} became ")


def poisoning(model: zoo.Model, name: str, step: int, steps: int) -> zoo.Recipe:
    """Return a recipe whose last phase leaves NaN in a weight after a step, until the training has gone back."""
    recipe = model.recipe()
    last, index, due = recipe.phases[-1], len(recipe.phases) - 1, [False]

    def loss(model: zoo.Model, batch: Batch) -> Terms:
        now = round(batch.progress * steps)
        due[0] = now == step and batch.noise.number() == Noise(key(0, now, "phase", index)).number()
        return last.loss(model, batch)

    def poison(network: nn.Module) -> None:
        if due[0]:
            model.get_parameter(name).data[0, 0, 0, 0] = float("nan")

    return replace(recipe, phases=(*recipe.phases[:-1], replace(last, loss=loss, project=poison)))


def saved(run: Path) -> list[str]:
    """Return the steps of a run's checkpoints; all that they hold is finite."""
    kept = steps(run / "checkpoints")
    assert all(read(path).non_finite() is None for path in kept)
    return [path.name for path in kept]


@pytest.mark.parametrize(
    ("step", "why"),
    [
        # Checkpoints are due after steps 4 and 8: that of step 8 would hold the NaN of step 7.
        (5, "2 steps in a row had values that are not finite: generator.adversarial became nan, first in {name}"),
        (7, "{name} is not finite"),
    ],
)
def test_a_poisoned_weight_is_never_saved_and_gone_back_from(step, why, tmp_path):
    torch.manual_seed(0)
    model, name = zoo.create("dcgan", **DCGAN), "discriminator.from_image.weight"
    seen: list[list[str]] = []
    run = zoo.train(
        model, "emoji", kimg=0.04, batch=4, out=tmp_path / "run", recipe=poisoning(model, name, step, 10),
        **{**SCHEDULE, "patience": 2, "tick_kimg": 0.004, "keep": 9},
        progress=lambda *_: seen.append(saved(tmp_path / "run")),
    )  # fmt: skip
    back = next(fault for fault in faults(run) if fault["action"] == "rolled back")
    assert back == {"step": 8, "action": "rolled back", "to": 4, "why": why.format(name=name), "rate": 0.5}
    lrs = {line["step"]: line["lr"] for line in run.log}
    assert [lrs[step] / lrs[1] for step in range(1, 11)] == [1] * 4 + [0.5] * 6
    assert saved(tmp_path / "run") == ["00000000", "00000004", "00000008", "00000010"]
    assert len(seen) > 10
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "went back once" in card
    assert torch.isfinite(run.model.sample(1, seed=0)).all()


def test_what_was_left_out_stands_in_the_card_and_in_the_log_for_good(tmp_path):
    run = train(BACK, tmp_path / "run", steps=12)
    # The line of step 6 told of step 2's and went with the way back to step 4, but that of step 3 stays.
    assert [(fault["step"], fault["action"]) for fault in faults(run)] == [
        (2, "skipped"), (6, "skipped"), (7, "skipped"), (8, "rolled back"),
    ]  # fmt: skip
    assert sum(line.get("skipped", 0) for line in run.log) == 3
    assert "3 steps left out" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_told_faults_are_told_again_when_their_line_goes(tmp_path):
    every = replace(BACK, options={**BACK.options, "tick_kimg": 0.004})
    run = train(every, tmp_path / "run", steps=12)
    assert [(line["step"], line.get("skipped")) for line in run.log][2:6] == [(3, 1), (4, None), (5, 2), (6, None)]
    assert [fault["step"] for fault in faults(run)] == [2, 6, 7, 8]


def test_a_training_without_faults_says_nothing_of_them(tmp_path):
    run = train(KIND, tmp_path / "run", steps=2)
    assert "left out" not in (tmp_path / "run" / "model" / "README.md").read_text()
    assert not any({"faults", "skipped"} & set(line) for line in run.log)


def test_a_training_that_stays_broken_gives_up_and_keeps_the_last_good_checkpoint(tmp_path):
    for_good = replace(BACK, breaks=Break("generator", tuple(range(6, 12)), nan))
    with pytest.raises(Diverged, match=r"generator\.adversarial became nan.*, after going back 3 times"):
        train(for_good, tmp_path / "run", steps=12)
    assert saved(tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def work(kind: Kind, out: Path) -> dict[str, Tensor]:
    """Train in this process and return its weights, with the name of what broke."""
    run = train(kind, out, steps=12)
    return load_file(run.directory / "model" / "model.safetensors")


def test_processes_agree_where_the_loss_of_one_is_broken(tmp_path):
    here, there = (replace(BACK, processes=2, breaks=Break("discriminator", (2, 6, 7), nan, passing=True, rank=rank))
                   for rank in (0, 1))  # fmt: skip
    together(work, 2, here, tmp_path / "here")
    together(work, 2, there, tmp_path / "there")
    assert differences(tmp_path / "here", tmp_path / "there") == []      # whichever it was
    told = faults(zoo.Run(tmp_path / "there"))
    assert [(fault["step"], fault["action"]) for fault in told] == [
        (2, "skipped"), (6, "skipped"), (7, "skipped"), (8, "rolled back"),
    ]  # fmt: skip


# Memory that runs out: a limit on this process's address space, and losses that ask for so much an image.


def hungry(out: Path, each: int, limit: int) -> tuple[list[dict[str, Any]], dict[str, Tensor], str]:
    """Train on 8 images a step, `each` bytes for every image, with `limit` bytes to spare; (log, weights, error)."""
    torch.manual_seed(0)
    model = zoo.create("stylegan", **STYLEGAN)
    recipe = model.recipe()

    def needing(phase: zoo.Phase) -> zoo.Phase:
        def loss(model: zoo.Model, batch: Batch) -> Terms:
            taken = torch.empty(len(batch), each, dtype=torch.uint8)
            terms = phase.loss(model, batch)
            del taken
            return terms

        return replace(phase, loss=loss)

    if limit:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + limit, resource.RLIM_INFINITY))
    hungry = replace(recipe, phases=tuple(needing(phase) for phase in recipe.phases))
    try:
        run = zoo.train(model, "emoji", kimg=0.032, batch=8, out=out, recipe=hungry, **SCHEDULE)
    except RunError as error:
        return [], {}, str(error)
    return run.log, load_file(out / "model" / "model.safetensors"), ""


def test_memory_that_runs_out_makes_micro_batches_smaller(tmp_path):
    ((log, weights, _),) = together(hungry, 1, tmp_path / "limited", 1 << 29, 3 << 30)      # 4 GiB for 8, 2 GiB for 4
    ((whole, wanted, _),) = together(hungry, 1, tmp_path / "whole", 0, 0)
    assert [fault for line in log for fault in line.get("faults", [])] == [
        {"step": 0, "action": "split", "accumulate": 2}
    ]
    assert [line["step"] for line in log] == [line["step"] for line in whole]
    for name, value in wanted.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-5)


def test_memory_that_is_too_small_for_one_image_ends_with_one_line(tmp_path):
    ((_, _, error),) = together(hungry, 1, tmp_path / "run", 4 << 30, 3 << 30)
    assert error.startswith("Out of memory with one image at a time: use --precision bf16")
